# syntax=docker/dockerfile:1
# Targets: cpu (the default) and cuda.
#   docker build -t voucher .
#   docker build -t voucher:cuda --target cuda .

ARG PYTHON_VERSION=3.12

# ---- what both images need to install packages -------------------------------------------------------
FROM python:${PYTHON_VERSION}-slim-bookworm AS installer
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
COPY docker/lock docker/lock
RUN pip install --no-cache-dir "$(grep -om1 '^uv==[^ ;]*' docker/lock/cpu.txt)" && uv venv /opt/venv
COPY pyproject.toml ./

# ---- dependencies: their own layers, which a change of the source leaves alone -------------------------
FROM installer AS install-cpu
# The build of torch: cpu is 4 GB smaller than the package index's. Empty takes the index's own.
ARG TORCH_BACKEND=cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install -r pyproject.toml --extra cpu --extra telemetry -c docker/lock/cpu.txt ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"}
COPY README.md LICENSE ./
COPY models models
COPY indexer indexer
COPY app app
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --build-constraints docker/lock/cpu.txt .

FROM installer AS install-cuda
# Empty takes the package index's torch, which brings its CUDA libraries along; cu128 and others pick one.
ARG TORCH_BACKEND=
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install -r pyproject.toml --extra gpu --extra telemetry -c docker/lock/gpu.txt ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"}
COPY README.md LICENSE ./
COPY models models
COPY indexer indexer
COPY app app
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --build-constraints docker/lock/gpu.txt .

# ---- what runs: no compiler, no installer, no root ----------------------------------------------------
FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="voucher" \
      org.opencontainers.image.description="Names a plant from a field photo, and shows the herbarium sheets that vouch for the answer." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Only what the image itself needs is set here: an unknown VOUCHER_ variable is refused at start-up.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VOUCHER_HOME=/data \
    HF_HOME=/data/huggingface \
    MPLCONFIGDIR=/tmp/matplotlib
# pg_dump, for the backup of a catalogue in PostgreSQL before its schema changes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 voucher \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin voucher \
    && install -d -o voucher -g voucher -m 0750 /data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('VOUCHER_PORT', '8000') + '/healthz', timeout=4)"]
ENTRYPOINT ["voucher"]
CMD ["serve", "--host", "0.0.0.0"]

FROM runtime AS cuda
# Read by the NVIDIA container toolkit, which brings the driver into the container.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=install-cuda /opt/venv /opt/venv

# Last, so that a build without --target makes this one.
FROM runtime AS cpu
COPY --from=install-cpu /opt/venv /opt/venv
