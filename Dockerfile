# Mamba Restoration Zoo in a container.
#
#   docker build -t zoo .                                        CPU
#   docker build -t zoo-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 \
#       --build-arg EXTRAS=onnx,trt .                            CUDA and TensorRT
#   docker run --rm -v "$PWD:/work" zoo restore photo.png -o restored.png -n mambair_tiny_x2
#
# For CUDA, run it with --gpus all. The C++ kernel is compiled in the first stage.
FROM python:3.13-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++=4:* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=onnx
RUN python -m venv /zoo \
    && /zoo/bin/pip install --no-cache-dir -c constraints.txt torch --extra-index-url "$TORCH_INDEX" \
    && /zoo/bin/pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]" \
    && /zoo/bin/zoo doctor

FROM python:3.13-slim-bookworm
COPY --from=build /zoo /zoo
RUN useradd --uid 1000 --create-home zoo
USER 1000
WORKDIR /work
ENV PATH=/zoo/bin:$PATH
ENTRYPOINT ["zoo"]
CMD ["doctor"]
