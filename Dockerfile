# Two images with the command xmc, of which the CPU's is built by default, and one without torch. Files are read and written in /work.
#
#     docker build --tag xmc .                  and   docker run --rm --volume "$PWD:/work" xmc quickstart
#     docker run --rm --volume "$PWD:/work" --publish 8080:8080 xmc serve runs/quickstart --host 0.0.0.0
#     docker build --tag xmc-light --target light .    (numpy and pyarrow alone: `from xmc.light import LightRetriever`)
#     docker build --tag xmc-cuda --target cuda .      docker run --rm --gpus all --volume "$PWD:/work" xmc-cuda quickstart
#
# Not tested: where xmc is tested there is no docker. `make test-wheel` does the same steps without one, for the CPU.

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir "build>=1.2" && python -m build --outdir /dist

FROM python:3.12-slim AS base
# libgomp: threads for numba's loops. Its compiled loops go where any user may write.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
ENV NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /work
EXPOSE 8080
ENTRYPOINT ["xmc"]

FROM python:3.12-slim AS light
RUN pip install --no-cache-dir numpy pyarrow
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-cache-dir --no-deps /dist/*.whl
WORKDIR /work
CMD ["python"]

FROM base AS cuda
# Triton compiles what starts its kernels with a C compiler. torch from PyPI brings CUDA; the driver is the machine's.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "torch>=2.11,<=2.13.0"
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-cache-dir "$(ls /dist/*.whl)[gpu,serve]"

FROM base AS cpu
RUN pip install --no-cache-dir "torch>=2.11,<=2.13.0" --index-url https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-cache-dir "$(ls /dist/*.whl)[cpu,serve]"
