# syntax=docker/dockerfile:1
# docker build --target gateway .      gateway, controller with Kubernetes jobs, `trimtab db upgrade`
# docker build --target jobs .         drift monitor, retraining jobs, controller with subprocess jobs
# docker build --target engine-cpu .   vLLM on CPUs

FROM python:3.11-slim-bookworm AS python
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    HOME=/tmp \
    HF_HOME=/var/lib/trimtab/huggingface \
    TRIMTAB_STATE_DIR=/var/lib/trimtab

# Dependencies first, our code last: a change of code rebuilds one small layer.
FROM python AS build
WORKDIR /src
RUN python -m venv /opt/venv && pip install --no-cache-dir setuptools==84.2.1
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements

FROM build AS build-gateway
RUN pip install --no-cache-dir --no-deps -r requirements/base.lock
COPY service service
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM build AS build-torch
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" torch==2.13.0

# The lock as a constraint: only what monitor and jobs need of it, neither vLLM nor the development tools.
FROM build-torch AS build-jobs
RUN pip install --no-cache-dir --no-build-isolation --constraint requirements/cpu.lock ".[monitor,train]"
COPY service service
COPY retrain_jobs retrain_jobs
RUN pip install --no-cache-dir --no-deps --no-build-isolation --force-reinstall .

# The lock as it is: resolved again, vLLM would pull torchvision and torchaudio as CUDA builds.
FROM build-torch AS build-engine-cpu
RUN pip install --no-cache-dir --no-deps -r requirements/cpu.lock
COPY service service
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Trimtab"
RUN install -d -o 10001 -g 10001 /var/lib/trimtab /var/lib/trimtab/adapters /var/lib/trimtab/cache /etc/trimtab
# trimtab.yaml is read from the working directory: mount it here.
WORKDIR /etc/trimtab
USER 10001:10001
ENTRYPOINT ["trimtab"]

FROM runtime AS jobs
LABEL org.opencontainers.image.title="trimtab-jobs" \
      org.opencontainers.image.description="Trimtab's drift monitor and retraining jobs"
COPY --from=build-jobs /opt/venv /opt/venv
# The monitor has no port, and a job ends by itself: the store's heartbeats tell whether they live.
HEALTHCHECK NONE
CMD ["monitor"]

FROM runtime AS engine-cpu
LABEL org.opencontainers.image.title="trimtab-engine-cpu" \
      org.opencontainers.image.description="vLLM on CPUs with Trimtab's LoRA plugin"
USER 0:0
# vLLM links libnuma, and asks lscpu, which the base image has, for cores.
RUN apt-get update \
    && apt-get install -y --no-install-recommends "libnuma1=2.0.16-*" \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
COPY --from=build-engine-cpu /opt/venv /opt/venv
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8001/health', timeout=2)"]
CMD ["engine"]

# The last target is what `docker build .` makes.
FROM runtime AS gateway
LABEL org.opencontainers.image.title="trimtab-gateway" \
      org.opencontainers.image.description="Trimtab's gateway, control API, console and controller"
COPY --from=build-gateway /opt/venv /opt/venv
ENV HEALTH_URL=http://127.0.0.1:8080/health
EXPOSE 8080 9101
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ['HEALTH_URL'], timeout=2)"]
CMD ["serve"]
