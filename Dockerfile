# The image holds the tools, not the project. Mount a checkout at /workspace; code, data and DVC cache stay on disk.
#
#   docker build -t codex-ml .
#   docker run --rm -v "$PWD:/workspace" --user "$(id -u):$(id -g)" codex-ml
#
# For a GPU build of torch: --build-arg TORCH="torch==2.13.0 --index-url URL", and `docker run --gpus all`.

FROM python:3.11-slim-bookworm AS builder

ARG TORCH=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /workspace

# Before the sources, so that an edit of the sources does not install torch again.
COPY requirements.lock torch.lock ./
COPY .ci/install .ci/
RUN TORCH="$TORCH" sh .ci/install /opt/venv

# Editable, so that the library is that of the mounted checkout, never an old copy in the image.
COPY LICENSE README.md pyproject.toml ./
COPY src ./src
RUN pip install --no-deps --no-build-isolation --editable . && python -P -m codex_ml packages


FROM python:3.11-slim-bookworm

# git: DVC needs it for experiments. g++: torch.compile builds its CPU kernels with it.
# Versions are not pinned: Debian removes old ones from its mirrors, so a pinned build would fail after a security fix.
# The checkout belongs to a user of the host, so safe.directory must allow that owner.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends g++ git \
  && rm -rf /var/lib/apt/lists/* \
  && git config --system --add safe.directory /workspace \
  && useradd --create-home --uid 1000 codex

COPY --from=builder /opt/venv /opt/venv

# HOME and the caches are in /tmp and USER is set, so that any --user works, also one without an entry in /etc/passwd.
# DVC's index (pickles) stays inside the container, which no other user can enter; mount a volume there to keep it.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=codex \
    DVC_SITE_CACHE_DIR=/tmp/dvc \
    PYTHONUNBUFFERED=1

WORKDIR /workspace
USER 1000
ENTRYPOINT ["dvc"]
CMD ["repro"]
