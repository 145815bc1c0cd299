"""Small checkpoints of each kind, and seeded damage to their files; run as a program, it reads damaged ones.

    python -m tests.checkpoints.mutations FOLDER FIRST END

reads the damaged checkpoints of these seeds, and prints a line for each: the seed, the kind, the seconds, and how it
ended. If reading ends the process, the lines tell at which.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from tests.checkpoints import index_files
from tests.nets import published
from tf_image_classification import checkpoints
from tf_image_classification.errors import CheckpointError

INDEX = "V2 checkpoint with right checksums"
KINDS = {  # kind -> the file or folder that --checkpoint_path names, and the files that are damaged
    "Keras 3 weights": ("small.weights.h5", ["small.weights.h5"]),
    "Keras 2 weights": ("old.h5", ["old.h5"]),
    "compressed HDF5": ("packed.h5", ["packed.h5"]),
    ".keras": ("small.keras", ["small.keras"]),
    "V1 checkpoint": ("v1.ckpt", ["v1.ckpt"]),
    "V2 checkpoint": ("v2/small.ckpt", ["v2/small.ckpt.index", "v2/small.ckpt.data-00000-of-00001"]),
    "TF2 object checkpoint": ("object/ckpt-1", ["object/ckpt-1.index", "object/ckpt-1.data-00000-of-00001"]),
    INDEX: ("v2/small.ckpt", ["v2/small.ckpt.index"]),
    "checkpoint state": ("v2", ["v2/checkpoint"]),
}
_NUMBERS = (b"\0" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\1\0\0\0", b"\x40\0\0\0\0\0\0\0")


def save_all(folder: Path) -> None:
    """Saves one small model in each of `KINDS`."""
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(5, name="hidden")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    model.save_weights(folder / "small.weights.h5")
    model.save(folder / "small.keras")
    published.save(model, folder / "old.h5")
    with h5py.File(folder / "packed.h5", "w") as file:
        for name, size in (("a/vars/0", 64), ("b/vars/0", 512)):
            values = np.arange(size, dtype=np.float32)
            file.create_dataset(name, data=values, chunks=(32,), compression="gzip", shuffle=True, fletcher32=True)
    (folder / "v2").mkdir()
    tf.train.Checkpoint(model=model).save(str(folder / "object" / "ckpt"))
    saver = tf.compat.v1.train.Saver({variable.path: variable.value for variable in model.weights}, write_version=1)
    saver.save(None, str(folder / "v1.ckpt"), write_meta_graph=False, write_state=False)
    saver = tf.compat.v1.train.Saver({variable.path: variable.value for variable in model.weights})
    saver.save(None, str(folder / "v2" / "small.ckpt"), write_meta_graph=False)


def kind_of(seed: int) -> str:
    """Of five seeds one is of HDF5: a process is started for each such file."""
    hdf5, other = list(KINDS)[:4], list(KINDS)[4:]
    return hdf5[seed // 5 % 4] if seed % 5 == 0 else other[(seed - seed // 5) % len(other)]


def damaged_copy(saved: Path, seed: int, folder: Path) -> str:
    """Copies the checkpoint `kind_of(seed)` of `save_all` from `saved` to `folder`, and damages one of its files.

    Returns:
        The path for --checkpoint_path.
    """
    kind = kind_of(seed)
    path, files = KINDS[kind]
    top = Path(path).parts[0]
    if (saved / top).is_dir():
        shutil.copytree(saved / top, folder / top)
    else:
        shutil.copy(saved / top, folder)
    chance = random.Random(seed)
    file = folder / chance.choice(files)
    content = bytearray(index_files.block_in(file.read_bytes()) if kind == INDEX else file.read_bytes())
    for _ in range(chance.choice((1, 1, 1, 2, 5, 20))):
        _damage(content, chance)
    file.write_bytes(index_files.of_block(bytes(content)) if kind == INDEX else content)
    return str(folder / path)


def _damage(content: bytearray, chance: random.Random) -> None:
    """Flips a bit, sets a byte or a number, cuts, inserts, or exchanges two blocks."""
    at = chance.randrange(len(content) or 1)
    length = chance.choice((1, 4, 8, 64))
    match chance.randrange(8):
        case 0 | 1:
            content[at : at + 1] = bytes(byte ^ 1 << chance.randrange(8) for byte in content[at : at + 1])
        case 2 | 3:
            content[at : at + 1] = bytes([chance.randrange(256)])
        case 4:
            content[at : at + 8] = chance.choice(_NUMBERS)
        case 5:
            content[at:at] = chance.randbytes(length)
        case 6:
            del content[at : chance.choice((at + length, len(content)))]
        case _:
            other = chance.randrange(len(content) or 1)
            one, two = bytes(content[at : at + length]), bytes(content[other : other + length])
            content[at : at + len(two)], content[other : other + len(one)] = two, one


def outcome(path: str) -> str:
    """Reads a whole checkpoint: "read", "refused", or what else was raised."""
    try:
        with checkpoints.read(path) as weights:
            size = sum(values.nbytes for values in weights.values())
    except CheckpointError as error:
        return "refused" if "\n" not in str(error) and "Too many open files" not in str(error) else repr(error)
    except Exception as error:
        return repr(error)
    return "read" if size < 1 << 20 else f"{size} bytes"


def main(saved: str, first: int, end: int) -> None:
    """Reads the damaged checkpoints of the seeds from `first` to before `end`."""
    for seed in range(first, end):
        with tempfile.TemporaryDirectory() as folder:
            path = damaged_copy(Path(saved), seed, Path(folder))
            print(seed, kind_of(seed), sep="\t", end="\t", flush=True)
            start = time.monotonic()
            ended = outcome(path)
            print(f"{time.monotonic() - start:.1f}", ended, sep="\t", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
