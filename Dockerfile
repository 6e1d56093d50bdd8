# For CPUs:  docker build -t srx .
# For CUDA:          docker build -t srx:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#
#     docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" srx upscale in/ out/
#     docker run --rm --gpus all -v "$PWD:/work" --user "$(id -u):$(id -g)" srx:cuda upscale in/ out/

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY sr_cli sr_cli
COPY weights weights
COPY docs/share docs/share
COPY examples examples
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.12-slim-bookworm
# The wheels of the CPU index hold no CUDA; those of PyPI for Linux do.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir "torch>=2.13" "torchvision>=0.28" --index-url "$TORCH_INDEX"
RUN --mount=type=bind,from=build,source=/dist,target=/dist \
    pip install --no-cache-dir /dist/*.whl
RUN useradd --uid 1000 --create-home srx
# Also for a user of any other number, who has no home of his own.
ENV HOME=/tmp \
    SRX_HOME=/tmp/srx \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /work
ENTRYPOINT ["srx"]
CMD ["--help"]
