"""--estimator and --packages -> an EstimatorSpec, checked before any work starts."""

from __future__ import annotations

import importlib
import inspect
import os
import sys

from tf_image_classification import estimator_code
from tf_image_classification import flags as flag_table
from tf_image_classification.built_in_estimator import BuiltInEstimator
from tf_image_classification.errors import EstimatorError, FlagError
from tf_image_classification.estimator_specs import EstimatorSpec

_AUGMENTATION_FLAGS = ("augmentation", "crop_area", "crop_aspect", "mixup", "cutmix")


def load(estimator: str | None, packages: str | None = None) -> EstimatorSpec:
    """Creates the estimator that --estimator names, or the built-in one.

    Changes the import path: installs `packages`, and adds the working directory. Sets the spec's `code`.

    Args:
        estimator: `package.module:Class`; None: the built-in estimator.
        packages: installed before the module is imported, see `packages.install`.

    Raises:
        FlagError: a package cannot be installed, `estimator` is not of that form, the module cannot be imported, or the
            class is not an EstimatorSpec.
        EstimatorError: see `instantiate`.
    """
    code = estimator_code.find(estimator, packages)
    if packages is not None:
        from tf_image_classification import packages as user_packages

        user_packages.install(packages)
    if estimator is None:
        return BuiltInEstimator()
    expected = "package.module:Class, a class that inherits from EstimatorSpec"
    module_name, _, class_name = estimator.partition(":")
    if not module_name or not class_name:
        raise FlagError("Invalid value for --estimator", received=estimator, expected=expected)
    if os.getcwd() not in sys.path:  # as `python -m` has it; an installed command does not
        sys.path.insert(0, os.getcwd())
    try:
        spec_class = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise FlagError(
            f"The module of --estimator cannot be imported: {error}", received=estimator, expected=expected
        ) from error
    if not (isinstance(spec_class, type) and issubclass(spec_class, EstimatorSpec)):
        raise FlagError("--estimator does not name an EstimatorSpec", received=estimator, expected=expected)
    spec = instantiate(spec_class)
    spec.code = code
    return spec


def instantiate(spec_class: type[EstimatorSpec]) -> EstimatorSpec:
    """Creates an instance of a spec's class and checks its `class_dict`.

    Raises:
        FlagError: the class does not implement every abstract method, or its constructor needs arguments.
        EstimatorError: `class_dict` has not the form that `EstimatorSpec` documents.
    """
    if missing := sorted(getattr(spec_class, "__abstractmethods__", ())):
        raise FlagError(
            f"{spec_class.__name__} does not implement {', '.join(missing)}", expected="the methods of EstimatorSpec"
        )
    try:
        inspect.signature(spec_class).bind()
    except TypeError as error:
        raise FlagError(
            f"{spec_class.__name__} cannot be created without arguments: {error}",
            expected="a class whose constructor needs none",
        ) from None
    spec = spec_class()
    types = {"name": str, "depth": int, "one-hot": bool}
    for entry in spec.class_dict:
        if not (isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in types.items())):
            raise EstimatorError(
                f"{spec_class.__name__}.class_dict has an invalid entry",
                received=entry,
                expected="{'name': str, 'depth': int, 'one-hot': bool}",
            )
    return spec


def check_input(spec: EstimatorSpec) -> None:
    """Checks that the flags of `spec.flags` about training images can take effect in a training of the spec.

    Raises:
        FlagError: they cannot.
    """
    streams, batch_size = spec.flags.shard_streams, spec.flags.batch_size
    if streams > 1 and spec.has_own_input:
        raise FlagError(
            f"--shard_streams has no effect: {type(spec).__name__} reads batches of its own",
            received=f"--shard_streams {streams}",
        )
    if batch_size % streams:
        raise FlagError(
            "Each stream fills an equal part of a batch",
            received=f"--batch_size {batch_size} --shard_streams {streams}",
            expected="a --batch_size that --shard_streams divides",
        )
    _check_augmentation(spec)


def _check_augmentation(spec: EstimatorSpec) -> None:
    flags = spec.flags
    given = [name for name in _AUGMENTATION_FLAGS if getattr(flags, name) != flag_table.BY_NAME[name].default]
    received = ", ".join(f"--{name} {getattr(flags, name)}" for name in given)
    if given and spec.has_own_input:
        raise FlagError(
            f"{type(spec).__name__} cannot be augmented by flags, since it reads batches of its own",
            received=received,
            hint="Omit these flags, or replace its input_fn by get_decode_fn and get_preproc_fn.",
        )
    crop = [name for name in given if name.startswith("crop_")]
    if crop and spec.training_crop(flags.augmentation) is None:
        raise FlagError(
            f"{_without_effect(crop)}: with --augmentation {flags.augmentation}, training images are not cropped by "
            "area here",
            received=received,
            hint="--augmentation light, randaugment and trivialaugment crop the images of every estimator; original, "
            "those of built-in networks whose published training crops by area.",
        )
    mixing = [name for name in given if name in ("mixup", "cutmix")]
    if mixing and flags.batch_size == 1:
        raise FlagError(
            f"{_without_effect(mixing)}: the images of a batch are mixed with each other",
            received="--batch_size 1",
            expected="a --batch_size of 2 or more",
        )


def _without_effect(names: list[str]) -> str:
    return f"{' and '.join(f'--{name}' for name in names)} {'have' if len(names) > 1 else 'has'} no effect"
