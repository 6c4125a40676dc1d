"""A real S3 server as the off-host store: OpenStack Swift with its S3 API, on one disk.

The server checks signatures and the region, accepts multipart uploads, and uses TLS with a
certificate from its own CA.
"""

import secrets

from tests.stack.harness import wait_until
from tests.stack.place import Place

REGION, BUCKET, ACCOUNT, USER = "test-1", "copies", "backups", "stack"
REQUESTS = "/srv/requests"  # a line per request, with its answer
# Swift consists of three stores behind a proxy, which provides the S3 API. The long timeouts keep
# the proxy from marking a store as failed on a busy machine: a stored object that is not listed yet
# would look lost.
RECIPE = f"""
FROM %s
USER root
RUN --mount=type=secret,id=apt.conf,target=/etc/apt/apt.conf.d/99host \\
    --mount=type=secret,id=ca,target=/run/secrets/ca \\
    apt-get update && apt-get install -y --no-install-recommends openssl python3-swift
WORKDIR /etc/swift
COPY <<swift.conf <<server <<store.conf <<proxy.conf <<internal.conf ./
[swift-hash]
swift_hash_path_suffix = test
[storage-policy:0]
name = one
default = yes
swift.conf
import sys
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(f"/etc/swift/{{sys.argv[1]}}.conf", f"{{sys.argv[1]}}-server", verbose=True))
server
[DEFAULT]
user = swift
workers = 0
mount_check = false
bind_ip = 127.0.0.1
bind_port = PORT
[pipeline:main]
pipeline = KIND-server
[app:KIND-server]
use = egg:swift#KIND
conn_timeout = 30
container_update_request_timeout = 60
store.conf
[DEFAULT]
user = swift
workers = 0
bind_port = 443
cert_file = /etc/swift/server.pem
key_file = /etc/swift/server.key
[pipeline:main]
pipeline = catch_errors proxy-logging cache s3api tempauth slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 30
node_timeout = 60
recoverable_node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
[filter:s3api]
use = egg:swift#s3api
location = {REGION}
[filter:slo]
use = egg:swift#slo
[filter:tempauth]
use = egg:swift#tempauth
proxy.conf
[pipeline:main]
pipeline = catch_errors proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
internal.conf
RUN port=6200; for kind in object container account; do \\
      sed "s/KIND/$kind/; s/PORT/$port/" store.conf >$kind.conf \\
   && for step in 'create 0 1 0' "add r1z1-127.0.0.1:$port/disk 1" rebalance; do \\
        /usr/bin/python3 -m swift.cli.ringbuilder $kind.builder $step || exit 1; \\
      done; \\
      port=$((port + 1)); \\
    done
VOLUME /srv/node
ENTRYPOINT ["/bin/sh", "-ec"]
"""
# pgBackRest compares OFFSITE_HOST with the certificate's names, even if OFFSITE_HOST is an address.
START = f"""
new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
$new -x509 -keyout ca.key -out ca.pem -subj "/CN=CA of the test" 2>/dev/null
$new -keyout server.key -out server.csr -subj "/CN=server" 2>/dev/null
printf 'subjectAltName=DNS:%s\\n' "$ADDRESS" >names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names \\
    -out server.pem 2>/dev/null
printf '%s\\n' "user_{ACCOUNT}_{USER} = $SECRET .admin" >>proxy.conf
install -d -o swift /srv/node/disk
for kind in object container account; do /usr/bin/python3 server $kind & done
/usr/bin/python3 -c "from swift.common.internal_client import InternalClient
client = InternalClient('/etc/swift/internal.conf', 'test', 10)
client.create_container('AUTH_{ACCOUNT}', '{BUCKET}')"
exec /usr/bin/python3 server proxy >{REQUESTS} 2>&1
"""


class S3Server(Place):
    """The server, with a bucket and one key."""

    RECIPE, START, PORT = RECIPE, START, 443

    def __init__(self, project: str, base: str) -> None:
        self.secret = secrets.token_hex(20)
        super().__init__(project, base)

    def variables(self) -> dict[str, str]:
        """Return the secret key and the name in the certificate."""
        return {"SECRET": self.secret, "ADDRESS": self.address}

    def authority(self) -> str:
        """Wait until the server answers, and return the certificate of its CA."""
        connect = "import socket; socket.create_connection(('127.0.0.1', 443))"
        wait_until(
            lambda: self.sh(f'python3 -c "{connect}" 2>&1 || true') == "",
            60,
            "the server answers",
            every=0.5,
        )
        return self.sh("cat /etc/swift/ca.pem")

    def settings(self) -> dict[str, str]:
        """Return the settings for `.env`."""
        return {
            "OFFSITE_TYPE": "s3",
            "OFFSITE_HOST": self.address,
            "OFFSITE_PORT": self.port(),
            "OFFSITE_USER": f"{ACCOUNT}:{USER}",
            "OFFSITE_PATH": "/stack",
            "OFFSITE_BUCKET": BUCKET,
            "OFFSITE_REGION": REGION,
        }

    def requests(self, method: str, query: str) -> int:
        """Return the number of successful requests whose query contains a word."""
        pattern = f" {method} /{BUCKET}/[^ ]*{query}[^ ]* HTTP/[0-9.]* 20[0-9] "
        return int(self.sh(f"grep -cE '{pattern}' {REQUESTS} || true"))
