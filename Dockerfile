# One file for the images of all services: `--build-arg SERVICE=registry` and so on; and for etcd.
# BASE and BASE_ETCD are public images unless `scripts/machine.sh base-images` built local ones. Of BASE_ETCD only
# the two programs are taken: the etcd project's image has no shell. Which versions do: docs/federation.md.
ARG BASE=python:3.11-slim-bookworm
ARG BASE_ETCD=gcr.io/etcd-development/etcd:v3.5.33

FROM ${BASE} AS folders
RUN mkdir -m 700 -p /folders/mao /folders/mao-etcd /folders/mao-federation /folders/mao-agreements \
    /folders/run/mao && chmod 755 /folders/run

FROM ${BASE_ETCD} AS etcd-programs

FROM ${BASE} AS etcd
COPY --from=etcd-programs /usr/local/bin/etcd /usr/local/bin/etcdctl /usr/local/bin/
RUN etcd --version && ETCDCTL_API=3 etcdctl version
# Folders with their owner: a named volume takes both over from the image when it is first used.
COPY --from=folders --chown=10001:10001 /folders/mao-etcd /var/lib/mao-etcd
COPY --from=folders --chown=10001:10001 /folders/mao-federation /var/lib/mao-federation
COPY --from=folders --chown=10001:10001 /folders/run/ /run/
COPY scripts/federation-etcd.sh /usr/local/bin/federation-etcd.sh
USER 10001:10001

# What every service needs comes before SERVICE is known, so that it is installed once for all.
FROM ${BASE} AS common
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python3 -m venv /opt/mao
COPY shared/requirements.lock /src/common.lock
RUN /opt/mao/bin/python -m pip install --quiet --require-hashes --requirement /src/common.lock

FROM common AS build
ARG SERVICE
COPY services/${SERVICE}/requirements.lock /src/service.lock
COPY cli/requirements.lock /src/cli.lock
# The client is in the data manager's image, whose code `maoctl vote run` uses: one image less to build and keep in step.
RUN [ "$SERVICE" = datamgmt ] || : >/src/cli.lock; /opt/mao/bin/python -m pip install --quiet --require-hashes \
    --requirement /src/service.lock --requirement /src/cli.lock \
    && /opt/mao/bin/python -m pip uninstall --quiet --yes pip setuptools
COPY scripts/link_projects.py /opt/mao/src/scripts/
COPY shared /opt/mao/src/shared
COPY services/${SERVICE} /opt/mao/src/services/${SERVICE}
COPY git /opt/mao/src/git
COPY vote /opt/mao/src/vote
COPY cli /opt/mao/src/cli
RUN [ "$SERVICE" = datamgmt ] || rm -rf /opt/mao/src/cli /opt/mao/src/git /opt/mao/src/vote
RUN /opt/mao/bin/python /opt/mao/src/scripts/link_projects.py && /opt/mao/bin/python -m compileall -q /opt/mao/src

FROM ${BASE}
ARG SERVICE
LABEL org.opencontainers.image.title="mao-${SERVICE}"
# Only the data manager speaks Git LFS. The locally built base has the programs already.
RUN if [ "$SERVICE" = datamgmt ] && ! command -v git-lfs >/dev/null; then apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends git git-lfs openssh-client \
    && rm -rf /var/lib/apt/lists/*; fi
COPY --from=folders --chown=10001:10001 /folders/mao /var/lib/mao
COPY --from=folders --chown=10001:10001 /folders/mao-federation /var/lib/mao-federation
COPY --from=folders --chown=10001:10001 /folders/run/ /run/
COPY --from=folders --chown=10001:10001 /folders/mao-agreements /var/lib/mao-agreements
COPY --from=build /opt/mao /opt/mao
COPY scripts/healthcheck.py scripts/step_down.py scripts/prepare_folders.py scripts/container-start.sh /opt/mao/
ENV PATH=/opt/mao/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MAO_SERVICE=${SERVICE} MAO_HOST=0.0.0.0 MAO_PORT=8080 MAO_DATA_DIR=/var/lib/mao
# What `maoctl --version` names. Here, since a new commit alone should not build the layers above again.
ARG MAO_COMMIT=
ENV MAO_COMMIT=${MAO_COMMIT}
USER 10001:10001
WORKDIR /var/lib/mao
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-I", "-S", "/opt/mao/healthcheck.py"]
CMD ["sh", "/opt/mao/container-start.sh"]
