"""The advice to the operator for a missing, wrong or unwise setting, by the key of the setting."""

# Variables that other stacks read. An operator who sets one expects an effect, so it is refused.
NOT_READ = {
    "DATABASE_URL": (
        "set DATABASE_HOST, _PORT, _NAME and _USER in a compose file of your own,"
        " and the secret database_password"
    ),
    "REDIS_URL": (
        "set REDIS_HOST and REDIS_PORT in a compose file of your own, and the secret redis_password"
    ),
    "CREATE_TABLES": "remove it: only migrations create tables (python -m api.migrate)",
}
FIXES = {
    "ACCESS_TOKEN_MINUTES": "set 60 or less in .env; 15 is the default",
    "ALLOWED_HOSTS": (
        "name the hosts, separated by commas; with compose.yaml it is SLIPWAY_HOST in .env"
    ),
    "CORS_ORIGINS": "name each origin, such as https://app.example.org, or leave it empty",
    "DATABASE_HOST": (
        "set the host name alone; port, name, user and password are settings of their own"
    ),
    "DATABASE_PASSWORD": (
        "put a random password into secrets/database_password,"
        " and set the same password in Postgres with ALTER ROLE"
    ),
    "DATABASE_SSLMODE": "use verify-full, with the CA's certificate in DATABASE_SSLROOTCERT",
    "DATABASE_SSLROOTCERT": "name a file with the CA's certificate that the container can read",
    "DEBUG": "remove it from the container's environment",
    "DOCS_ENABLED": "empty it in .env",
    "ENVIRONMENT": "empty it in .env, unless this is a developer's machine",
    "OPS_PASSWORD": (
        "put a random password of 16 characters or more into secrets/ops_password;"
        " with an empty file the console is off"
    ),
    "OPS_SESSION_MAX_MINUTES": "set 120 or less in .env; 120 is the default",
    "REDIS_PASSWORD": (
        "put a random password of 16 characters or more into secrets/redis_password,"
        " and restart redis"
    ),
    "RELOAD": (
        "run a release: this is the development image, or its compose file."
        " ./scripts/up.sh builds a release"
    ),
    "SENTRY_DSN": "copy it from Sentry into secrets/sentry_dsn, or empty that file",
    "WEBHOOK_ALLOWED_NETWORKS": "name the one receiver, such as 10.1.2.3/32, or leave it empty",
    "TOKEN_KEY": (
        "put a random key into secrets/token_key: openssl rand -base64 48."
        " Users have to log in again"
    ),
    "TOKEN_KEY_PREVIOUS": (
        "put a random key into secrets/token_key_previous,"
        " or empty that file if there is no previous key"
    ),
}
