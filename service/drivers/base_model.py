"""What the base model is: its digest, and the shapes of its weights."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from service.core.errors import ConfigError
from service.drivers.safetensors import Malformed, Tensor, read_header

_WHOLE_BYTES = 64 * 2**20
_SAMPLE_BYTES = 2**20
_CHUNK_BYTES = 2**20


def model_folder(base_model: str) -> Path | None:
    """The base model's folder, or None for a Hugging Face id that is not on this machine."""
    folder = Path(base_model).expanduser()
    return folder if (folder / "config.json").is_file() else None


def base_digest(base_model: str) -> str:
    """SHA-256 over config.json and every weight file: whole up to 64 MiB, beyond that its header, size and the first,
    middle and last MiB of its tensors, so that it takes well under a second for any model. For a Hugging Face id it is
    the id's own hash."""
    folder = model_folder(base_model)
    if folder is None:
        return sha256(b"hub:" + base_model.encode()).hexdigest()
    total = sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        total.update(f"\0{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_BYTES:
                while chunk := file.read(_CHUNK_BYTES):
                    total.update(chunk)
                continue
            header, _ = _header(path)
            total.update(header)
            for start in (len(header), size // 2, size - _SAMPLE_BYTES):
                file.seek(start)
                total.update(file.read(_SAMPLE_BYTES))
    return total.hexdigest()


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every weight's shape (outputs first), by name, from the headers of the safetensors files alone."""
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        _, tensors = _header(path)
        found |= {name: tensor.shape for name, tensor in tensors.items()}
    return found


def _header(path: Path) -> tuple[bytes, dict[str, Tensor]]:
    try:
        return read_header(path)
    except Malformed as error:
        raise ConfigError(f"The base model's {path.name} cannot be read: {error}; copy the model again.") from error
