"""How a model is trained: the settings under [train] in a recipe."""

from dataclasses import dataclass

from regard.config import setting, suggest
from regard.errors import RegardError
from regard.training.optimizers import OPTIMIZERS
from regard.training.reports import REPORTS
from regard.training.schedule import SCHEDULES

# more is a slip of the finger
MOST_STEPS = 1_000_000_000
BUDGETS = ("steps", "epochs", "minutes")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The budget is one of `steps`, `epochs` and `minutes`."""

    steps: int | None = setting(None, least=1, most=MOST_STEPS)
    epochs: int | None = setting(None, least=1, most=MOST_STEPS)
    minutes: float | None = setting(None, above=0, most=MOST_STEPS)
    seed: int = setting(1, least=0, most=2**31 - 1)
    threads: int = setting(0, least=0)
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    dtype: str = setting("float32", choices=("float32", "bfloat16"))
    batch_tokens: int = setting(2048, least=1, most=MOST_STEPS)
    accumulate: int = setting(1, least=1, most=MOST_STEPS)
    optimizer: str = setting("adamw", choices=tuple(OPTIMIZERS))
    learning_rate: float = setting(1e-3, above=0)
    schedule: str = setting("wsd", choices=tuple(SCHEDULES))
    warmup_steps: int = setting(100, least=0, most=MOST_STEPS)
    decay: float = setting(0.25, above=0, below=1)
    weight_decay: float = setting(0.01, least=0)
    clip: float = setting(1.0, above=0)
    label_smoothing: float = setting(0.1, least=0, below=1)
    guided_alignment: float = setting(0.0, least=0)
    validate_every: int = setting(500, least=1, most=MOST_STEPS)
    patience: int | None = setting(None, least=1, most=MOST_STEPS)
    average: int = setting(1, least=1, most=1000)
    shard: bool = setting(False)
    compile: bool = setting(False)
    report: str | tuple = setting(())

    def __post_init__(self) -> None:
        for name in self.reports:
            if not isinstance(name, str) or name not in REPORTS:
                raise RegardError(f"report has no {name!r}{suggest(str(name), REPORTS)}")
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(budgets) != 1:
            given = " and ".join(budgets) or "none"
            raise RegardError(f"needs one budget, steps, epochs or minutes, and has {given}")
        if self.schedule == "cosine" and self.minutes is not None and not self.warmup_steps:
            raise RegardError(
                "schedule 'cosine' by minutes measures its speed in the warm-up: set warmup_steps to 1 or more"
            )
        if self.shard and self.optimizer == "muon":
            raise RegardError("shard gives each process a part of every matrix, and muon needs it whole: set adamw")

    @property
    def reports(self) -> tuple:
        """Where metrics go beside metrics.jsonl."""
        return (self.report,) if isinstance(self.report, str) else self.report
