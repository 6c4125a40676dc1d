# One image for the API, the worker and migrate: a slot is one release of both.
# scripts/up.sh sets PYTHON_IMAGE: python:3.13-slim-trixie, or an image built from Debian packages.
ARG PYTHON_IMAGE

FROM ${PYTHON_IMAGE} AS runtime
# The group 10001, shared with nginx by number, owns the sockets in /run/slots.
# Setuid programs have no use under no-new-privileges.
# The official image has no byte code of the standard library, and with a read-only root each start
# would compile it again. With Debian's package, which has byte code, this step changes nothing.
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin app \
 && install -d -o app -g app -m 2770 /run/slots \
 && find / -xdev -perm /6000 -type f -exec chmod a-s {} + \
 && python3 -m compileall -q -j 0 -x '/(site-packages|dist-packages|test|tests)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# Hashing a password takes 19 MiB (api/users/passwords.py). With these two settings, glibc returns
# that memory to the system at once, because allocations of 1 MiB or more are outside its two
# arenas. By default, glibc raises this threshold to the size of the last freed block, and then
# keeps such blocks.
ENV PATH=/opt/venv/bin:$PATH \
    MALLOC_ARENA_MAX=2 \
    MALLOC_MMAP_THRESHOLD_=1048576 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TZ=UTC
WORKDIR /app

FROM runtime AS dependencies
# The host's CA bundle and its pip configuration are build secrets: no layer contains them.
COPY requirements.lock ./
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && export PIP_CONFIG_FILE=/run/secrets/pip.conf \
 && python3 -m venv /opt/venv \
 && pip install --require-hashes --no-deps --only-binary :all: -r requirements.lock \
 && pip uninstall --yes pip \
 && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM runtime AS sbom
COPY requirements-build.lock ./
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && export PIP_CONFIG_FILE=/run/secrets/pip.conf \
 && python3 -m venv /opt/tool \
 && /opt/tool/bin/pip install --require-hashes --no-deps --only-binary :all: \
      -r requirements-build.lock \
 && /opt/tool/bin/cyclonedx-py environment --output-reproducible --of JSON -o /sbom.cdx.json \
      /opt/venv/bin/python

FROM runtime AS source
COPY api ./api
COPY worker ./worker
COPY service.toml ./
# The scripts build from a copy with these modes. A build by hand may come from a checkout with the
# umask 077, and the service's user could not read its own code.
RUN chmod -R u=rwX,go=rX . \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash api worker

FROM runtime AS production
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=sbom /sbom.cdx.json ./
COPY --from=source /app ./
USER 10001:10001
CMD ["gunicorn", "--config", "python:api.server.gunicorn_conf", "api.main:app"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-S", "/app/api/health/probe.py"]
# These arguments come last, because they differ in every build: all layers above are reused.
ARG RELEASE
ARG REVISION
ARG MIGRATION_HEAD
ARG MIGRATIONS
ARG BUILD_TIME
ENV SLIPWAY_RELEASE=${RELEASE}
LABEL org.opencontainers.image.title="slipway" \
      org.opencontainers.image.version="${RELEASE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${BUILD_TIME}" \
      slipway.migration_head="${MIGRATION_HEAD}" \
      slipway.migrations="${MIGRATIONS}"

# For platforms where migrations are a separate job: `docker run IMAGE --check`, `--head` and so on.
# The stack needs no second image: its migrate service runs api.migrate from the release's image.
FROM production AS migrate
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "api.migrate"]

# For compose.dev.yaml, which mounts the checkout over the sources. watchfiles restarts the process
# at each save, even if the process could not start after the save before. Gunicorn's own reload has
# no effect with Uvicorn's worker.
FROM dependencies AS development
COPY requirements-dev.lock ./
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi \
 && export PIP_CONFIG_FILE=/run/secrets/pip.conf \
 && python3 -m venv --upgrade /opt/venv && python -m ensurepip \
 && python -m pip install --require-hashes --no-deps --only-binary :all: -r requirements-dev.lock
COPY api ./api
COPY worker ./worker
COPY service.toml ./
USER 10001:10001
# (!) RELOAD keeps this image out of production: api/configuring/validation.py refuses it there.
ENV RELOAD=true \
    SLIPWAY_RELEASE=development
LABEL org.opencontainers.image.title="slipway" \
      org.opencontainers.image.version="development"
CMD ["watchfiles", "--filter", "python", "gunicorn --config python:api.server.gunicorn_conf api.main:app", "api"]

# The target of a plain `docker build .`.
FROM production
