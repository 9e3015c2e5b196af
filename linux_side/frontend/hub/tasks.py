"""Tasks by the names that transformers' pipelines give them, and the Auto classes that make their models."""

from __future__ import annotations

import difflib

from toolchain.errors import UsageError

# The first class that knows the folder's configuration is taken.
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
# How the names of transformers' model classes end, where that tells the task.
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
    """The names of the classes that make a task's model.

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
    """The task for which a model class of transformers was made, as far as its name tells."""
    return next((task for ending, task in _ENDINGS.items() if architecture.endswith(ending)), "feature-extraction")
