"""Several paths in one text, as --train_metadata and --image_root take them."""

from __future__ import annotations

from tf_image_classification import storage


def split_metadata(metadata: str) -> list[str]:
    """The paths and globs of a metadata text, which commas separate. One that exists may have commas and spaces itself.

    Of `photos, 2024/cat.csv,dog.csv` the first two words are one path if there is a folder `photos, 2024`.
    """
    if "," in metadata and not storage.is_gcs(metadata) and storage.exists(metadata):
        return [metadata]
    words, parts = metadata.split(","), []
    while words:
        # Where an absolute path follows, a comma separates: this saves look-ups in buckets.
        end = next((i for i, word in enumerate(words) if i and is_absolute(word.strip())), len(words))
        candidates = [",".join(words[:count]) for count in range(end, 1, -1)]
        part = next((whole for whole in candidates for whole in (whole, whole.strip()) if storage.exists(whole)), None)
        if part is None:
            part = words[0] if words[0] != words[0].strip() and storage.exists(words[0]) else words[0].strip()
            parts += [part] if part else []
            words = words[1:]
        else:
            parts.append(part)
            words = words[part.count(",") + 1 :]
    return parts


def is_absolute(path: str) -> bool:
    """Whether a path names the same place in every working directory."""
    return path.startswith(("/", storage.GCS_SCHEME))
