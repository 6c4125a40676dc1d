"""The rule for the content of a secret file, and the name of each fault."""

from pathlib import Path

import pytest
from stack.config import secret_files
from stack.config.project import OPTIONAL_SECRETS, SECRETS, Project
from stack.failure import Failure
from stack.parts import bundle, configuration, judgement

from tests.scripts.imitation import Host, furnish

SECRET = b"0123456789abcdef"
FAULTS = [
    (SECRET + b"\r\n", "ends in a carriage return"),
    (SECRET + b" \n", "begins or ends with a blank"),
    (b"\t" + SECRET, "begins or ends with a blank"),
    (SECRET + b"\n" + SECRET + b"\n", "holds more than one line"),
    (SECRET + b"\n\n", "holds more than one line"),
    (SECRET + b"\r" + SECRET, "holds more than one line"),
    (b"", "is empty"),
    (b"\n", "is empty"),
    (b"\r\n", "is empty"),
    (b" \n", "begins or ends with a blank"),
    (b"caf\xe9\n", "is not UTF-8 text"),
    (b"\xef\xbb\xbf" + SECRET, "holds a character that cannot be printed"),
    (SECRET + b"\x00\n", "holds a character that cannot be printed"),
]


def wrong(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.fixture
def project(checkout: Path) -> Project:
    return furnish(checkout)


@pytest.mark.parametrize(("content", "named"), FAULTS)
def test_a_file_that_its_readers_take_differently_is_a_fault(
    tmp_path: Path, content: bytes, named: str
) -> None:
    (tmp_path / "redis_password").write_bytes(content)
    assert secret_files.fault(tmp_path / "redis_password").startswith(named)


@pytest.mark.parametrize(
    "content", [SECRET, SECRET + b"\n", b"two words\n", "schlüssel\n".encode()]
)
def test_one_line_of_text_is_a_secret_with_or_without_a_line_end(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "redis_password").write_bytes(content)
    assert secret_files.fault(tmp_path / "redis_password") == ""
    assert secret_files.read(tmp_path / "redis_password").encode() == content.removesuffix(b"\n")


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    assert secret_files.fault(tmp_path / "token_key") == secret_files.MISSING
    (tmp_path / "token_key").mkdir()
    assert secret_files.fault(tmp_path / "token_key").startswith("is a directory")


@pytest.mark.parametrize("name", ["ops_password", *OPTIONAL_SECRETS])
@pytest.mark.parametrize("content", [b"", b"\n"])
def test_a_secret_that_turns_something_off_may_be_empty(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert secret_files.fault(tmp_path / name) == ""
    (tmp_path / name).write_bytes(b" \r\n")
    assert (secret_files.fault(tmp_path / name) == "") == (name in secret_files.OF_SEVERAL_LINES)


def test_a_key_and_a_certificate_have_several_lines(tmp_path: Path) -> None:
    for name in secret_files.OF_SEVERAL_LINES:
        (tmp_path / name).write_text("-----BEGIN\na\n-----END\n", encoding="utf-8")
        assert secret_files.fault(tmp_path / name) == ""
        (tmp_path / name).write_bytes(b"\xff")
        assert secret_files.fault(tmp_path / name) == "is not UTF-8 text"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("content", [SECRET + b"\r\n", SECRET + b" ", b"a\nb\n", b"\xff\n"])
def test_up_check_config_deploy_and_export_refuse_by_the_same_words(
    project: Project, name: str, content: bytes
) -> None:
    wrong(project.secrets / name, content)
    words = f"{project.secrets / name} {secret_files.fault(project.secrets / name)}"
    findings = judgement.list_findings(Host(), project, "blue")
    assert [line.partition("; ")[0] for line in findings] == [f"critical {name.upper()}: {words}"]
    with pytest.raises(Failure) as refused:
        configuration.ensure_secrets(Host(), project)
    assert refused.value.observation == f"the secret file {words}"
    with pytest.raises(Failure) as left_out:
        bundle.collect(project)
    assert left_out.value.observation == words
