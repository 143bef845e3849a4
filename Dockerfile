# Three images from one file:
#   docker build --target server .   API, scheduler, signer; no torch
#   docker build --target worker .   the worker with its sandbox and torch; WORKER_BASE picks a GPU base
#   docker build --target dev .      everything, with the tests' tools; `make demo` and `make test` run in it
# BASE must be Debian 12 with Python 3.11 in its packages. PIP_ARGS goes to every pip call (an index of CPU builds, say).
ARG BASE=debian:bookworm-slim
ARG WORKER_BASE=${BASE}

FROM ${BASE} AS python
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/assay

FROM python AS server
ARG PIP_ARGS=""
COPY constraints.txt pyproject.toml ./
COPY client client
COPY service service
COPY sandbox sandbox
RUN python3 -m venv .venv \
 && .venv/bin/pip install ${PIP_ARGS} -c constraints.txt ./client '.[postgres]' \
 && useradd --uid 64700 --home-dir /var/lib/assay --create-home assay
USER assay
ENTRYPOINT [".venv/bin/assay-server"]

FROM ${WORKER_BASE} AS worker
ARG PIP_ARGS=""
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv bubblewrap util-linux \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /srv/assay
COPY constraints.txt pyproject.toml ./
COPY client client
COPY service service
COPY sandbox sandbox
COPY checks checks
RUN python3 -m venv .venv \
 && .venv/bin/pip install ${PIP_ARGS} -c constraints.txt ./client '.[checks,postgres]' \
 && useradd --uid 64700 --home-dir /var/lib/assay --create-home assay
# The worker starts as an ordinary user; a worker started as root drops to the cell user before bubblewrap.
USER assay
ENTRYPOINT [".venv/bin/assay-server"]

FROM python AS dev
RUN apt-get update \
 && apt-get install -y --no-install-recommends bubblewrap git make nodejs npm openssl redis-server util-linux \
 && rm -rf /var/lib/apt/lists/*
COPY . .
ARG PIP_ARGS=""
RUN python3 -m venv .venv \
 && .venv/bin/pip install ${PIP_ARGS} -c constraints.txt -e ./client -e '.[checks,dev]' \
 && touch .venv/.installed
CMD ["make", "demo"]
