# docker build -t stableanimator .                       to compute on the CPU
# docker build -t stableanimator --target cuda .         on an NVIDIA GPU; docker run then takes --gpus all
# docker run --rm -v "$PWD:/work" stableanimator         animates the example, into outputs/
# docker run --rm -v "$PWD:/work" stableanimator sample stableanimator_512 --reference person.jpg ...
FROM python:3.13-slim AS cpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
# Caches go where any user can write: docker run --user "$(id -u):$(id -g)" leaves files that are yours.
ENV PIP_NO_CACHE_DIR=1 HOME=/tmp PATH=/opt/stableanimator/.venv/bin:$PATH
WORKDIR /opt/stableanimator
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install -e .
WORKDIR /work
ENTRYPOINT ["stableanimator"]
CMD ["sample"]

FROM cpu AS cuda
WORKDIR /opt/stableanimator
RUN pip install -e '.[cuda]'
WORKDIR /work

FROM cpu
