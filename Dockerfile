# The operator's image. Build it from a clone with docker, podman or buildah:
#   docker build --tag circuitbreaker-operator:dev .
# BASE_IMAGE may be any image with Python 3.11 or later as python3, with its venv module: both stages use it, so what is
# compiled in the first runs in the second. Whatever comes from a package index is a wheel whose hash is known: the tools in
# build-requirements.txt, the dependencies in uv.lock. docs/release.md says how the same bytes come out again.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim

FROM ${BASE_IMAGE} AS build
# PYTHONHASHSEED: the order of a set in bytecode.
ENV PYTHONHASHSEED=0 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_NO_PROGRESS=1 \
    UV_PROJECT_ENVIRONMENT=/opt/circuitbreaker \
    UV_PYTHON=python3 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY build-requirements.txt ./
RUN python3 -m venv /tools \
    && /tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: --requirement build-requirements.txt
# Dependencies first: they change less often than the source.
COPY pyproject.toml uv.lock ./
RUN /tools/bin/uv sync --frozen --no-build --no-dev --extra operator --no-install-project
COPY README.md LICENSE ./
COPY contract contract
COPY clients clients
COPY operator operator
# By pip, since uv notes the time of the wheel's file beside what it installs.
RUN /tools/bin/uv build --wheel --offline --no-build-isolation --python /tools/bin/python --out-dir /wheel \
    && /tools/bin/python -m pip --disable-pip-version-check --python /opt/circuitbreaker/bin/python install \
        --no-index --find-links /wheel --no-deps --no-compile circuitbreakers
# The one run leaves the bytecode of what the operator loads. To compile all would add 60 MB that nothing reads: the client of
# Kubernetes has thousands of models. Bytecode holds the time of its source, so that is set before, and that of the rest after.
ARG SOURCE_DATE_EPOCH=1580601600
RUN find /opt/circuitbreaker -exec touch -h -d "@${SOURCE_DATE_EPOCH}" {} + \
    && /opt/circuitbreaker/bin/circuitbreaker-operator --version \
    && find /opt/circuitbreaker -exec touch -h -d "@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="circuitbreaker-operator" \
      org.opencontainers.image.description="Circuit breakers as a Kubernetes resource, with shared state in Redis." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# Nothing is installed at run time, so what could do it goes from the layer on top, where the base has it.
RUN if python3 -m pip --version >/dev/null 2>&1; then \
        PYTHONHASHSEED=0 python3 -m pip uninstall --yes --quiet --root-user-action=ignore pip setuptools wheel \
            || echo "pip belongs to the base's package manager, and stays"; \
    fi
COPY --from=build /opt/circuitbreaker /opt/circuitbreaker
# The file system may be read-only: nothing is written, not even bytecode. Output is not held back. HOME: the user has no entry
# in /etc/passwd to look it up in, and the client of Kubernetes asks for it as it is imported.
ENV PATH=/opt/circuitbreaker/bin:$PATH \
    HOME=/ \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that runAsNonRoot can be checked; no such user need exist.
USER 65532:65532
WORKDIR /
EXPOSE 8000
# No HEALTHCHECK: Kubernetes asks /healthz and /readyz, and has no use for a second opinion.
ENTRYPOINT ["circuitbreaker-operator"]
CMD ["run"]
