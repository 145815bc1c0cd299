"""The table of flags: every flag, declared once.

Command lines, pipeline parameters, component arguments, the documentation's table and validation all derive from it.
"""

from __future__ import annotations

from tf_image_classification import image_limits
from tf_image_classification.flag_types import (
    BUILD,
    BUILD_STEP,
    EVALUATE,
    EVALUATE_STEP,
    GATE_STEP,
    REGISTER_STEP,
    RESOLVE_STEP,
    TRAIN,
    TRAIN_STEP,
    Flag,
)
from tf_image_classification.network_sizes import MIN_IMAGE_SIZE

COMMON, DATA, AUGMENTATION, MODEL = "Common", "Data", "Augmentation", "Model"
OPTIMIZERS, LEARNING_RATE, FINE_TUNING = "Optimizers", "Learning rate", "Fine tuning"
SELECTION = "Model selection"
GATE, SERVICE = "Gate", "In service"

FLAGS: tuple[Flag, ...] = (
    # Common
    Flag("model_dir", str, None, COMMON,
         "Folder for checkpoints, TensorBoard summaries and, under export/, the finished model. A checkpoint found "
         "there is resumed. In the pipeline: the parent of the checkpoint folders (default: checkpoints/ under "
         "the pipeline root).", steps=(TRAIN_STEP,), path="write", no_glob=True, in_checkpoint_key=False),
    Flag("recipe", str, None, COMMON,
         "A named set of flag values: finetune, from a pretrained checkpoint, or scratch, without one. A flag given "
         "beside it wins, at its default or not; where it is a pipeline parameter set in a UI, which has a value for "
         "every flag, only one that is not at its default. `python -m pipelines run --recipe NAME --show` prints the "
         "values. Not set: the defaults of the flags.",
         choices=("finetune", "scratch"), in_checkpoint_key=False, ours=True),
    Flag("checkpoint_path", str, None, COMMON,
         "Pretrained weights to start from: a slim .ckpt (V1 or V2), a folder of checkpoints, a TF2 checkpoint, a "
         ".keras or .h5 file, or a model folder of this project; or the word imagenet, the published weights of a "
         "network of keras.applications. In the pipeline, the word champion stands for the model in service. Not set: "
         "train from scratch.", path="read", no_glob=True),
    Flag("weights_dir", str, None, COMMON,
         "Folder that keeps the files downloaded for --checkpoint_path imagenet, and where they are looked for first; "
         "may be in a bucket. Not set: Keras's own, ~/.keras/models.", path="write", no_glob=True,
         in_checkpoint_key=False, ours=True),
    Flag("billing_project", str, None, COMMON,
         "Project that pays for requests to gs:// buckets with Requester Pays. Not set: that of the bucket.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP, TRAIN_STEP, EVALUATE_STEP, REGISTER_STEP),
         in_checkpoint_key=False, ours=True),
    Flag("train_metadata", str, None, COMMON,
         "Training images: a CSV of path,label (or with header URIs,labels), a folder with one sub-folder per "
         "class, or TFRecord files or globs; several are separated by commas.",
         commands=(BUILD, TRAIN), steps=(RESOLVE_STEP, BUILD_STEP), path="read", is_list=True),
    Flag("eval_metadata", str, None, COMMON,
         "Evaluation images, in the same forms as --train_metadata. Not set: --eval_fraction of the training images "
         "is held out.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), path="read", is_list=True),
    Flag("batch_size", int, 1, COMMON, "Examples per training step, over all replicas; see --sync_replicas.", ge=1),
    Flag("train_steps", int, 20, COMMON,
         "Global step at which training ends, including those before a training was resumed.",
         ge=1, in_checkpoint_key=False),
    Flag("image_size", int, 299, COMMON,
         "Height and width in pixels to which preprocessing resizes every image.", ge=1, le=8192),
    Flag("eval_freq", int, 5, COMMON, "Number of batches in each evaluation during training.", ge=1),
    Flag("eval_throttle_secs", int, 120, COMMON,
         "Minimum time between evaluations during training, in seconds. There is always one at the end.", ge=0),
    Flag("debug", bool, False, COMMON, "Debug mode: examples are not shuffled."),
    # Data
    Flag("labels_file", str, None, DATA,
         "Text file with one class name per line; the line number, counted from 0, is the class id. Not set: the "
         "class names of the training images, sorted.",
         commands=(BUILD, TRAIN), steps=(RESOLVE_STEP, BUILD_STEP), path="read", ours=True),
    Flag("image_root", str, None, DATA,
         "Folder that images may be read from, or several, separated by commas. Paths in a list are relative to the "
         "first. An image outside them, whatever path or link leads there, is not read. Not set: the folder of the "
         "list or of the classes.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), path="read", is_list=True, ours=True),
    Flag("eval_fraction", float, 0.2, DATA,
         "Fraction of the training images that is held out for evaluation when --eval_metadata is not set. The split "
         "depends on each image's path alone, so adding images moves none between the splits.",
         gt=0, lt=1, commands=(BUILD, TRAIN), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("split_column", str, None, DATA,
         "Column of a CSV that says to which split each line belongs: train or training; validation, valid, val, dev "
         "or eval; test; or unassigned. If no line is for validation, those for test are evaluated. Vertex AI's import "
         "files need no such flag. Not set: --eval_metadata or --eval_fraction.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("image_feature", str, None, DATA,
         "Feature of TFRecords that holds the encoded image, such as image. Not set: slim's image/encoded, or the "
         "original framework's image_bytes.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("label_feature", str, None, DATA,
         "Feature of TFRecords that holds the class id, int64, such as label. Not set: slim's image/class/label, or "
         "the original framework's floats.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP), ours=True),
    Flag("allow_missing_classes", bool, False, DATA,
         "Accept classes of TFRecords or of --labels_file that have no training example, and TFRecords whose class ids "
         "have no names and are fewer than the names that they would get.",
         commands=(BUILD, TRAIN, EVALUATE), steps=(BUILD_STEP,), ours=True),
    Flag("max_duplicates_across_splits", int, None, DATA,
         "Maximum number of evaluation images that are near duplicates of training images; more are an error. Not "
         "set: no limit.",
         ge=0, commands=(BUILD, TRAIN), steps=(BUILD_STEP,), ours=True),
    Flag("max_image_pixels", int, image_limits.DEFAULT_PIXELS, DATA,
         "Maximum width * height of an image; a larger one is rejected. A worker takes up to 24 bytes per pixel.",
         ge=1, le=image_limits.MAX_PIXELS, commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP),
         ours=True),
    Flag("max_image_mib", int, image_limits.DEFAULT_MIB, DATA,
         "Maximum size of an image's file, in MiB; a larger one is rejected.",
         ge=1, le=image_limits.MAX_MIB, commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP),
         ours=True),
    Flag("max_side", int, 0, DATA,
         "Pixels to which the shorter side of a larger image is reduced when it is built, as a JPEG of quality 90 or, "
         "of lossless formats, a PNG: twice the network's input makes trainings on phones' pictures many times as fast "
         "to feed. 0: off.",
         ge=0, le=image_limits.MAX_SIDE, commands=(BUILD, TRAIN, EVALUATE), steps=(RESOLVE_STEP, BUILD_STEP),
         ours=True),
    Flag("check", bool, False, DATA,
         "Do all that a build does, but write no shards. The report goes to --output_dir if given: never a data set's.",
         commands=(BUILD,), steps=(), ours=True),
    Flag("shard_streams", int, 1, DATA,
         "Streams of shards, each of which fills an equal part of every batch: a worker of a cluster reads only the "
         "shards of its part. The order of examples is the same on any cluster. 1: every worker reads all shards.",
         ge=1, ours=True),
    Flag("workers", int, None, DATA, "Number of processes that read and check images. Not set: one per core.",
         ge=1, commands=(BUILD, TRAIN, EVALUATE), steps=(), ours=True),
    Flag("runner", str, None, DATA,
         "Runner of Apache Beam that builds, in place of this machine's processes; further flags are Beam's own. Not "
         "set: this machine.",
         choices=("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner", "PrismRunner"),
         commands=(BUILD,), steps=(), ours=True),
    Flag("output_dir", str, None, DATA, "Folder for the results.",
         commands=(BUILD, EVALUATE), steps=(), path="write", ours=True),
    # Augmentation
    Flag("augmentation", str, "original", AUGMENTATION,
         "Random changes of training images: original (those of the network's published training), light (crop and "
         "flip), randaugment (light and two of 14 operations, arXiv:1909.13719), trivialaugment (light and one "
         "operation of random strength, arXiv:2103.10158), or none.",
         choices=("original", "light", "randaugment", "trivialaugment", "none"), ours=True),
    Flag("crop_area", str, None, AUGMENTATION,
         "Smallest and largest share of the image's area that a random crop of training takes, such as 0.35,1. Not "
         "set: 0.1,1 with the inception preprocessing of --augmentation original, else 0.35,1. The vgg and unit "
         "preprocessing of original take no such crop.",
         is_range=True, gt=0, le=1, ours=True),
    Flag("crop_aspect", str, None, AUGMENTATION,
         "Smallest and largest ratio of width to height of a random crop. Not set: 0.75,1.33.",
         is_range=True, gt=0, ours=True),
    Flag("mixup", float, 0.0, AUGMENTATION,
         "Alpha of mixup (arXiv:1710.09412): each image of a batch and its labels are blended with the one before it, "
         "by a share from the beta distribution (alpha, alpha). 0: off.", ge=0, ours=True),
    Flag("cutmix", float, 0.0, AUGMENTATION,
         "Alpha of CutMix (arXiv:1905.04899): a rectangle of each image of a batch is replaced by that of the one "
         "before it. With --mixup, each batch gets one of the two. 0: off.", ge=0, ours=True),
    # Model
    Flag("model_name", str, "small", MODEL, "Built-in network.", choices=tuple(MIN_IMAGE_SIZE), ours=True),
    Flag("estimator", str, None, MODEL,
         "Your own EstimatorSpec, as package.module:Class. Not set: the built-in network --model_name.",
         commands=(TRAIN, EVALUATE), steps=(RESOLVE_STEP, TRAIN_STEP, EVALUATE_STEP), ours=True),
    Flag("packages", str, None, MODEL,
         "Wheels or source archives that --estimator needs, local or in a bucket, separated by commas; installed into "
         "a folder of their own.",
         commands=(TRAIN, EVALUATE), steps=(RESOLVE_STEP, TRAIN_STEP, EVALUATE_STEP), path="read", is_list=True,
         in_checkpoint_key=False, ours=True),  # its content is, see training_run
    Flag("model", str, None, MODEL,
         "Model folder, as exported by a training.",
         commands=(EVALUATE,), steps=(), path="read", no_glob=True, ours=True),
    Flag("eval_batch_size", int, 32, MODEL,
         "Images per batch in the evaluation of a finished model.",
         ge=1, commands=(EVALUATE,), steps=(EVALUATE_STEP,), ours=True),
    Flag("seed", int, None, MODEL,
         "Seed of all random numbers: two trainings with the same seed on one machine are bit-identical. Not set: a "
         "random seed.", ge=0, ours=True),
    Flag("save_checkpoints_secs", float, 600, MODEL,
         "Time between checkpoints, in seconds. There is also one before each evaluation and at the end.",
         gt=0, ours=True),
    Flag("precision", str, None, MODEL,
         "What the training computes in, with float32 variables: float32, or, faster on GPUs with tensor cores, "
         "mixed_float16 or, from Ampere on, mixed_bfloat16. Evaluation on the finished model and serving compute in "
         "float32. Not set: float32, or mixed_float16 with --mixed_precision.",
         choices=("float32", "mixed_float16", "mixed_bfloat16"), ours=True),
    Flag("mixed_precision", bool, False, MODEL, "Older name of --precision mixed_float16.", ours=True),
    Flag("profile", int, None, MODEL,
         "Global step from which the time of five training steps is recorded beside the summaries, for the profile of "
         "TensorBoard or xprof. Not set or 0: no profile.",
         ge=0, steps=(TRAIN_STEP,), in_checkpoint_key=False, ours=True),
    Flag("jit_compile", bool, False, MODEL,
         "Compile the computation of a batch, forward and backward, with XLA: faster on many GPUs, after a first step "
         "of up to minutes; slower on CPUs.", ours=True),
    # Optimizers
    Flag("weight_decay", float, 0.00004, OPTIMIZERS,
         "L2 regularisation of the network's kernels: weight_decay * sum(w^2) / 2 is added to the loss. With adamw, "
         "decoupled weight decay instead: each step subtracts learning rate * weight_decay * w from the kernels.",
         ge=0),
    Flag("optimizer", str, "rmsprop", OPTIMIZERS,
         "Name of the optimizer.",
         choices=("adadelta", "adagrad", "adam", "adamw", "ftrl", "momentum", "sgd", "rmsprop")),
    Flag("clip_norm", float, None, OPTIMIZERS,
         "Maximum norm of the gradient of all trained variables together; a longer one is scaled down to it. Not set: "
         "no limit.", gt=0, ours=True),
    Flag("ema_decay", float, 0.0, OPTIMIZERS,
         "Decay of an exponential moving average of the trained variables, which is evaluated and exported in their "
         "place; update n uses min(ema_decay, (1 + n) / (10 + n)). 0: off.", ge=0, lt=1, ours=True),
    Flag("adadelta_rho", float, 0.95, OPTIMIZERS, "Decay rate of adadelta.", ge=0, le=1),
    Flag("adagrad_initial_accumulator_value", float, 0.1, OPTIMIZERS,
         "Starting value of adagrad's accumulators.", gt=0),
    Flag("adam_beta1", float, 0.9, OPTIMIZERS,
         "Exponential decay rate of the first moments of adam and adamw.", ge=0, lt=1),
    Flag("adam_beta2", float, 0.999, OPTIMIZERS,
         "Exponential decay rate of the second moments of adam and adamw.", ge=0, lt=1),
    Flag("opt_epsilon", float, 1.0, OPTIMIZERS, "Epsilon of adadelta, adam, adamw and rmsprop.", ge=0),
    Flag("ftrl_learning_rate_power", float, -0.5, OPTIMIZERS, "Learning-rate power of ftrl.", le=0),
    Flag("ftrl_initial_accumulator_value", float, 0.1, OPTIMIZERS, "Starting value of ftrl's accumulators.", ge=0),
    Flag("ftrl_l1", float, 0.0, OPTIMIZERS, "L1 regularisation strength of ftrl.", ge=0),
    Flag("ftrl_l2", float, 0.0, OPTIMIZERS, "L2 regularisation strength of ftrl.", ge=0),
    Flag("momentum", float, 0.9, OPTIMIZERS, "Momentum of the momentum optimizer.", ge=0),
    Flag("rmsprop_momentum", float, 0.9, OPTIMIZERS, "Momentum of rmsprop.", ge=0),
    Flag("rmsprop_decay", float, 0.9, OPTIMIZERS, "Decay of rmsprop's mean square.", ge=0, le=1),
    # Learning rate
    Flag("learning_rate_decay_type", str, "exponential", LEARNING_RATE,
         "Learning-rate schedule: fixed, exponential (in steps, see --num_epochs_per_decay), polynomial (linear), or "
         "cosine (half a wave down to --end_learning_rate at --train_steps).",
         choices=("fixed", "exponential", "polynomial", "cosine")),
    Flag("learning_rate", float, 0.01, LEARNING_RATE, "Initial learning rate.", gt=0),
    Flag("end_learning_rate", float, 0.0001, LEARNING_RATE,
         "Final learning rate of polynomial and cosine decay.", ge=0),
    Flag("learning_rate_decay_factor", float, 0.94, LEARNING_RATE,
         "Factor by which each step of exponential decay multiplies the learning rate.", gt=0),
    Flag("warmup_fraction", float, 0.0, LEARNING_RATE,
         "Fraction of the training's steps in which the learning rate rises linearly to the schedule's.",
         ge=0, lt=1, ours=True),
    Flag("learning_rate_scales", str, None, LEARNING_RATE,
         "Factors of the learning rate by scope, such as MobilenetV1/Conv2d=0.1,MobilenetV1/Logits=1: regular "
         "expressions, matched at the start of a variable's name; the first that matches counts. Not set: 1 for all.",
         is_comma_separated=True, ours=True),
    Flag("label_smoothing", float, 0.0, LEARNING_RATE,
         "Label smoothing: this fraction of each one-hot label is distributed evenly over all classes.", ge=0, lt=1),
    Flag("num_epochs_per_decay", float, 2.0, LEARNING_RATE,
         "Epochs between the steps of exponential decay, or for the whole of polynomial decay.", gt=0),
    Flag("sync_replicas", bool, False, LEARNING_RATE,
         "Each training step takes the mean of the gradients of --replicas_to_aggregate batches, on one machine too, "
         "and the decay steps of the schedule are divided by it. Replicas are always synchronous."),
    Flag("replicas_to_aggregate", int, 1, LEARNING_RATE,
         "Batches of --batch_size examples per training step with --sync_replicas. One is in memory at a time.", ge=1),
    # Fine tuning
    Flag("batch_norm", str, "auto", FINE_TUNING,
         "Batch normalisation. auto: layers whose variables are not trained use their moving statistics, and those of "
         "trained layers are re-estimated on training images before an evaluation and the export, unless the training "
         "was long enough for their decay. original: all layers normalise by the batch, and moving statistics are "
         "evaluated as they are. frozen: all layers use the statistics of --checkpoint_path.",
         choices=("auto", "original", "frozen"), ours=True),
    Flag("sync_batch_norm", bool, False, FINE_TUNING,
         "Batch normalisation normalises by the batch of all replicas, which communicate in each such layer; else each "
         "replica normalises by its own part. Without effect on one device.", ours=True),
    Flag("head_fraction", float, 0.0, FINE_TUNING,
         "Fraction of --train_steps at the beginning in which the head alone is trained, with a constant learning "
         "rate; the schedule follows for the other steps.", ge=0, le=1, ours=True),
    Flag("head_learning_rate", float, None, FINE_TUNING,
         "Learning rate of --head_fraction. Not set: --learning_rate.", gt=0, ours=True),
    Flag("trainable_scopes", str, None, FINE_TUNING,
         "Comma-separated scopes of the variables to train: regular expressions, matched at the start of a "
         "variable's name. Not set: all variables.", is_regex=True),
    Flag("checkpoint_exclude_scopes", str, None, FINE_TUNING,
         "Comma-separated scopes of variables not to load from --checkpoint_path: prefixes of their names, such as "
         "the head's; or the word auto: the head, if it fits neither by the names of its classes nor by its shape. "
         "Not set: load all.", is_comma_separated=True),
    Flag("class_weights", str, None, FINE_TUNING,
         "balanced: the loss of each example is weighted by examples / (classes * examples of its class), over the "
         "training split and its classes that have examples. Not set: all examples weigh the same.",
         choices=("balanced",), ours=True),
    # Model selection
    Flag("num_evals", int, None, SELECTION,
         "Number of evaluations during training, evenly spaced over --train_steps, the last one at its end. Not set: "
         "as time passes, see --eval_throttle_secs.", ge=1, ours=True),
    Flag("export", str, "last", SELECTION,
         "Which model is exported: that of the last step, or that of the best evaluation.",
         choices=("last", "best"), ours=True),
    Flag("export_metric", str, None, SELECTION,
         "Metric that decides which evaluation is the best: a higher one is better, a lower one if its name contains "
         "loss or error. Not set: accuracy if there is one, else loss.", ours=True),
    Flag("early_stopping_evals", int, None, SELECTION,
         "Training ends after this many evaluations in a row without an improvement of --export_metric. Not set: at "
         "--train_steps.", ge=1, ours=True),
    # Gate
    Flag("min_accuracy", float, 0.0, GATE,
         "Minimum accuracy on the evaluation set for the model to pass the gate.",
         ge=0, le=1, commands=(), steps=(GATE_STEP,), ours=True),
    Flag("min_macro_f1", float, 0.0, GATE,
         "Minimum F1 score, averaged over classes, for the model to pass the gate.",
         ge=0, le=1, commands=(), steps=(GATE_STEP,), ours=True),
    Flag("min_class_recall", float, 0.0, GATE,
         "Minimum recall of every class for the model to pass the gate.",
         ge=0, le=1, commands=(), steps=(GATE_STEP,), ours=True),
    Flag("max_loss", float, None, GATE,
         "Maximum loss for the model to pass the gate. Not set: no limit.",
         ge=0, commands=(), steps=(GATE_STEP,), ours=True),
    # In service
    Flag("champion", str, None, SERVICE,
         "Location of the model in service: a folder, or a model in Vertex AI's Model Registry, "
         "projects/P/locations/L/models/ID. A new model is promoted to it only if it beats the current one on the "
         "evaluation set. Not set: no model is promoted.",
         commands=(), steps=(RESOLVE_STEP, REGISTER_STEP), path="write", no_glob=True, ours=True),
    Flag("promote", bool, True, SERVICE,
         "Promote a model that passes the gate. false: the run ends with the comparison, and `python -m "
         "tf_image_classification.vertex.promote` promotes it, under another account.",
         commands=(), steps=(RESOLVE_STEP, REGISTER_STEP), ours=True),
    Flag("champion_metric", str, "accuracy", SERVICE,
         "Metric that compares the new model with the one in service; with several tasks, its mean over them.",
         choices=("accuracy", "macro_f1", "loss"), commands=(), steps=(GATE_STEP,), ours=True),
    Flag("min_improvement", float, 0.0, SERVICE,
         "Minimum improvement of --champion_metric over the model in service. 0: any improvement; negative: it may be "
         "worse by up to that much.", commands=(), steps=(GATE_STEP,), ours=True),
    Flag("endpoint", str, None, SERVICE,
         "Vertex AI endpoint, projects/P/locations/L/endpoints/ID, to which a model that passes the gate is deployed "
         "with 100% of the traffic; needs a --champion in the Model Registry. Not set: no deployment.",
         commands=(), steps=(REGISTER_STEP,), ours=True),
    Flag("serving_machine_type", str, "e2-standard-4", SERVICE,
         "Vertex AI machine type for --endpoint.",
         commands=(), steps=(REGISTER_STEP,), ours=True),
    Flag("serving_image", str, "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest", SERVICE,
         "Serving container image for Vertex AI, by its version: a prebuilt one for TensorFlow 2, IMAGE:VERSION, or "
         "IMAGE@sha256:DIGEST.",
         commands=(), steps=(REGISTER_STEP,), is_image=True, ours=True),
)  # fmt: skip
