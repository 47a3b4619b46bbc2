# A stand-in for docker.io/library/redis, from Debian's packages: redis-tools holds the server under the name of another of its
# roles, and it goes by the name it is called by.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update -q \
    && apt-get install -q -y --no-install-recommends redis-tools \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/bin/redis-check-rdb /usr/local/bin/redis-server \
    && redis-server --version
USER 999:999
CMD ["redis-server"]
