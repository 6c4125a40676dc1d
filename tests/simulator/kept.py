"""Histories that found a fault of the product; each change of the product runs them again.

A new action changes the history of each random seed, so the history itself is kept.
"""

from collections.abc import Mapping

FIRST, WINDOW = "first release in blue", "window open, green live"
TAKEN_BACK, EMPTY = "after a take-back", "empty host"

# The daily work of an operator.
USUAL: Mapping[str, tuple[str, str]] = {
    "a rollback leads to the newest good deployment, and then to the one before it": (
        WINDOW,
        "edit good\ndeploy\nwait 60\nedit good\ndeploy\nwait 60\n"
        "rollback\nwait 60\nrollback\nstatus",
    ),
    "a number names a deployment, and a release its last good one": (
        WINDOW,
        "set LOG_LEVEL=DEBUG\ndeploy\nwait 60\nedit good\ndeploy\n"
        "rollback 2\nwait 60\nrollback r1\nwait 60\nrollback r2",
    ),
    "a deploy of settings is taken back with its settings": (
        WINDOW,
        "set LOG_LEVEL=DEBUG\nedit fails-in-traffic\ndeploy\nedit good\ndeploy\nrollback\nstatus",
    ),
}

# The name of each corrected fault, with the start and the history.
MENDED: Mapping[str, tuple[str, str]] = {
    "a worker without its signal fetched jobs": (WINDOW, "edit good\ndeploy ! fails step 11"),
    "a pre migration of a bad release stood in the way of a rollback": (
        WINDOW,
        "migration pre\nedit fails-in-traffic\ndeploy\nrollback",
    ),
    "an upgrade stopped what a moved folder kept from starting": (
        FIRST,
        "move-folder\nupgrade\nup\ndeploy\nwait 40\nstatus",
    ),
    "a restore stopped what a moved folder kept from starting": (
        FIRST,
        "backup\nmove-folder\nrestore\nup\ndeploy\nrestore",
    ),
    "the hint of a restore after a move led to the same refusal": (
        FIRST,
        "backup\nmove-folder\nrestore\nup --apply all\ndeploy\nrestore",
    ),
    "a busy Postgres was replaced by a plain up while a setting waited": (
        WINDOW,
        "set POSTGRES_MEMORY=400m\nbe-busy postgres\nup\nstatus",
    ),
    "a window whose process was killed had no end": (
        WINDOW,
        "kill-waiter\nwait 900\nstatus\nup\nwait 60\nstatus",
    ),
    "a window that a killed deploy began had no end": (
        WINDOW,
        "edit good\ndeploy ! killed after step 12\nwait 900\nstatus\nup\nwait 60\nstatus",
    ),
    "an upgrade asked the front door on a port that nginx had not": (
        FIRST,
        "set HTTPS_PORT=9443\nupgrade\nup\nupgrade",
    ),
    "the worker of a warm slot got the settings of a killed deploy": (
        WINDOW,
        "set LOG_LEVEL=DEBUG\ndeploy --image r1 ! killed before step 4\nrollback",
    ),
    "a lost ledger made the live release its own way back": (
        WINDOW,
        "edit good\ndeploy\nwait 60\nlose-ledger\nup\nrollback",
    ),
    "a lost ledger left a rollback without the settings of its deployment": (
        WINDOW,
        "lose-ledger\nset API_MEMORY=300m\nremove api-idle\nrollback",
    ),
    "a new nginx linked to blue while green was live": (
        WINDOW,
        "wait 60\nlose-link\nremove nginx\nup\nwait 40\nstatus",
    ),
    "a warm slot that was not ready was made live": (
        WINDOW,
        "change-secret database_password\nrestart-engine\nregain-secrets\nrollback",
    ),
    "an interrupted rollback had another target when it was repeated": (
        WINDOW,
        "edit good\ndeploy\nwait 60\nrollback ! stopped step 2\nrollback",
    ),
    "a restore that could not be recorded ended with 1": (
        FIRST,
        "backup\nrestore ! fails step 10\nstatus",
    ),
    "an upgrade started the release that a killed deploy had placed in the idle slot": (
        WINDOW,
        "edit crashes\ndeploy ! killed after step 5\nedit good\nwait 30\nupgrade",
    ),
    "the release of a failed deploy was a way back": (FIRST, "edit crashes\ndeploy\nrollback"),
    "the slot of a killed deploy, which was never live, ran for ever": (
        WINDOW,
        "edit good\ndeploy ! killed after step 8\nup\nstatus\ndeploy",
    ),
    "the release of a killed deploy was a way back": (
        FIRST,
        "edit good\ndeploy ! killed after step 6\nrollback",
    ),
    "a deploy loaded a certificate of another host": (
        WINDOW,
        "mend-nginx\ncertificate other.example\nedit good\ndeploy\nstatus",
    ),
    "a worker that drained was taken for that of the live slot after the loss of the link": (
        WINDOW,
        "edit good\ndeploy\nrollback\nlose-link\nup",
    ),
    "a corrected certificate was not loaded": (
        FIRST,
        "certificate other.example\ncrash nginx\ncertificate localhost\nup",
    ),
    "a lost secret that opens no data was named by nothing": (
        WINDOW,
        "lose-secret ops_password\nrollback\nregain-secrets\nrollback",
    ),
}

# The release fails, and its deploy is killed when its watch begins.
KILLED_IN_THE_WATCH = "edit fails-in-traffic\ndeploy ! killed after step 11"

# The name of an exception in known.py: the start, and the history.
OPEN: Mapping[str, tuple[str, str]] = {}
