"""STAF: medical language models from experts trained once and a few numbers per task.

In Python:

    model = staf.load_model(experts="experts")                    # a folder of experts, and the default base
    task = staf.Task.from_csv("notes.csv", text="note", label="outcome", group="patient_id")
    adapted = model.adapt(task, shots=32)                         # a router, learned from 32 labelled notes
    adapted.predict(["..."]), adapted.predict_proba(["..."])
    adapted.evaluate()                                            # metrics with 95 % intervals
    staf.compare(model, task)                                     # the same next to simple and other ways to answer
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from staf.data.task import Task
    from staf.model.adapted import Adapted, Scores
    from staf.model.classifier import RoutedClassifier
    from staf.model.comparison import Comparison, compare
    from staf.model.model import Model, load_adapted, load_model, load_task

__version__ = "0.1.0"
__all__ = [
    "Adapted", "Comparison", "Model", "RoutedClassifier", "Scores", "Task", "compare", "load_adapted", "load_model",
    "load_task",
]  # fmt: skip
_MODULES = {
    "Task": "data.task", "Adapted": "model.adapted", "Scores": "model.adapted", "RoutedClassifier": "model.classifier",
    "Comparison": "model.comparison", "compare": "model.comparison",
}  # fmt: skip


def module_of(name: str) -> str:
    """The module of a public name, below `staf`."""
    return _MODULES.get(name, "model.model")


if not TYPE_CHECKING:  # a type checker reports names that are not there

    def __getattr__(name: str) -> Any:
        """A public name, imported on first use: `import staf` and the command line stay fast."""
        if name not in __all__:
            raise AttributeError(f"module 'staf' has no attribute '{name}'")
        return getattr(import_module(f"staf.{module_of(name)}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
