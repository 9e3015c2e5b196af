"""The tasks, by their names in transformers' pipelines, and the Auto classes that load their models."""

from __future__ import annotations

import difflib

from toolchain.errors import UsageError

# The first class that supports the folder's configuration is used.
TASKS: dict[str, tuple[str, ...]] = {
    "audio-classification": ("AutoModelForAudioClassification",),
    "automatic-speech-recognition": ("AutoModelForCTC", "AutoModelForSpeechSeq2Seq"),
    "depth-estimation": ("AutoModelForDepthEstimation",),
    "feature-extraction": ("AutoModel",),
    "fill-mask": ("AutoModelForMaskedLM",),
    "image-classification": ("AutoModelForImageClassification",),
    "image-feature-extraction": ("AutoModel",),
    "image-segmentation": (
        "AutoModelForSemanticSegmentation",
        "AutoModelForUniversalSegmentation",
        "AutoModelForImageSegmentation",
    ),
    "image-to-image": ("AutoModelForImageToImage",),
    "object-detection": ("AutoModelForObjectDetection",),
    "question-answering": ("AutoModelForQuestionAnswering",),
    "text-classification": ("AutoModelForSequenceClassification",),
    "text-generation": ("AutoModelForCausalLM",),
    "text2text-generation": ("AutoModelForSeq2SeqLM",),
    "token-classification": ("AutoModelForTokenClassification",),
    "video-classification": ("AutoModelForVideoClassification",),
    "zero-shot-image-classification": ("AutoModelForZeroShotImageClassification",),
}

_ALIASES = {
    "ner": "token-classification",
    "sentiment-analysis": "text-classification",
    "summarization": "text2text-generation",
    "translation": "text2text-generation",
}
# Endings of the names of transformers' model classes that determine the task.
_ENDINGS = {
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForCTC": "automatic-speech-recognition",
    "ForSequenceClassification": "text-classification",
    "ForSemanticSegmentation": "image-segmentation",
    **{"For" + name.title().replace("-", ""): name for name in TASKS},
}


def auto_classes(task: str) -> tuple[str, ...]:
    """Returns the names of the Auto classes that load a task's model.

    Raises:
        UsageError: there is no such task.
    """
    known = _ALIASES.get(task, task)
    if known not in TASKS:
        near = difflib.get_close_matches(task, (*TASKS, *_ALIASES), 1)
        raise UsageError(
            f"there is no task {task!r}",
            where="--task",
            remedy=f"do you mean {near[0]}?" if near else "use one of: " + ", ".join(TASKS),
        )
    return TASKS[known]


def task_of(architecture: str) -> str:
    """Returns the task of a model class of transformers, judged by its name; ``feature-extraction`` if unknown."""
    return next((task for ending, task in _ENDINGS.items() if architecture.endswith(ending)), "feature-extraction")
