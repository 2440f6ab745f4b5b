"""What a configuration of `wdct align` may hold, and what each model's own settings make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wdct_dist.config.align_schema import AlignConfig, DpoConfig, LoraConfig, Method, Precision, StageConfig, TargetSide
from wdct_dist.config.load import FREE_ON_RESUME, read_into, unknown_keys
from wdct_dist.config.rules import Rule, above, at_least, broken, share
from wdct_dist.config.rules import check as check_evaluation
from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.errors import ConfigError

FREE_TO_CHANGE = (
    *("run_dir", "models", "target_sides", "seeds", "divergence", "resources", "max_left_out"),
    *(f"evaluation.{key}" for key in FREE_ON_RESUME),
)
"""What may change between the start of an experiment and its resumption: branches may come and go, a branch is trained as it began."""

STAGE_RULES: tuple[Rule, ...] = (
    ("epochs", at_least(1), "a whole number from 1 on"),
    ("learning_rate", above(0), "a finite number above 0"),
    ("batch_size", at_least(1), "a whole number from 1 on"),
    ("micro_batch_size", at_least(1), "a whole number from 1 on, or null"),
)

RULES: tuple[Rule, ...] = (
    ("run_dir", lambda value: bool(value.strip()), "a path"),
    ("run_dir", lambda value: "://" not in value, "a path that all nodes share: checkpoints are trained from and written to it"),
    ("models", lambda value: len(value) > 0, "at least one model"),
    ("target_sides", lambda value: 0 < len(value) == len(set(value)), "word, deed, none or some of them, each once"),
    ("methods", lambda value: value in ([Method.sft], [Method.dpo], [Method.sft, Method.dpo]), "[sft], [dpo] or [sft, dpo]"),
    ("seeds", lambda value: 0 < len(value) == len(set(value)) and min(value) >= 0, "whole numbers from 0 on, at least one, each once"),
    ("domains", lambda value: value is None or len(value) > 0, "at least one domain, or null for all"),
    ("held_out", lambda value: 0 <= value < 1, "a share from 0 on and under 1"),
    ("instructions.path", lambda value: value is None or bool(value.strip()), "`bundled`, a file, a hub id, or null"),
    ("instructions.ratio", at_least(0), "a number from 0 on"),
    ("instructions.limit", at_least(1), "a whole number from 1 on, or null"),
    *((f"sft.{key}", holds, allowed) for key, holds, allowed in STAGE_RULES),
    *((f"dpo.{key}", holds, allowed) for key, holds, allowed in STAGE_RULES),
    ("dpo.beta", above(0), "a finite number above 0"),
    ("warmup_steps", at_least(0), "a whole number from 0 on"),
    ("max_grad_norm", above(0), "a number above 0"),
    ("max_length", at_least(16), "a whole number from 16 on"),
    ("max_left_out", share, "a share from 0 to 1"),
    ("lora.r", at_least(1), "a whole number from 1 on, or null for all weights"),
    ("lora.alpha", at_least(1), "a whole number from 1 on, or null"),
    ("lora.dropout", lambda value: 0 <= value < 1, "a share from 0 on and under 1"),
    ("lora.target_modules", lambda value: value is None or len(value) > 0, "at least one name of a layer, or null"),
    ("save_every_steps", at_least(1), "a whole number from 1 on, or null"),
    ("divergence.margin_window", at_least(1), "a whole number from 1 on"),
    ("divergence.min_reward_margin", at_least(-1e9), "a finite number, or null"),
    ("divergence.max_margin_fall", lambda value: value is None or share(value), "a share from 0 to 1, or null"),
    ("divergence.control_limit", at_least(1), "a whole number from 1 on, or null"),
    ("divergence.min_control_accuracy", lambda value: value is None or share(value), "a share from 0 to 1, or null"),
    ("divergence.max_control_fall", lambda value: value is None or share(value), "a share from 0 to 1, or null"),
    ("resources.cpus", above(0), "a number above 0, or null"),
    ("resources.workers", at_least(1), "a whole number from 1 on"),
    (
        "resources.gpus",
        lambda value: value in (None, 0, 1),
        "0, 1 or null: a worker has one GPU at most; for more see resources.workers",
    ),
    ("resources.max_attempts", at_least(1), "a whole number from 1 on"),
)

OWN_SETTINGS = ("sft", "dpo", "lora", "precision")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is trained."""

    sft: StageConfig
    dpo: DpoConfig
    lora: LoraConfig
    precision: Precision

    def stage(self, method: Method) -> StageConfig:
        return self.sft if method is Method.sft else self.dpo


def load_align_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> AlignConfig:
    """The configuration of an experiment with dotlist `overrides` on top, checked; its evaluation has the run directory and the models."""
    config = read_into(AlignConfig, path, overrides, section="evaluation")
    check(config)
    config.evaluation.run_dir = config.run_dir
    config.evaluation.checkpoints = [entry for entry, _ in models_of(config)]
    try:
        check_evaluation(config.evaluation)
    except ConfigError as error:
        raise ConfigError("\n".join(f"evaluation.{line}" for line in str(error).splitlines())) from None
    return config


def check(config: AlignConfig) -> None:
    """Raises a `ConfigError` that names every value out of range and every combination that cannot be."""
    problems = broken(config, RULES)
    defaults = Config()
    for key in ("run_dir", "checkpoints"):
        if getattr(config.evaluation, key) != getattr(defaults, key):
            problems.append(f"evaluation.{key}: not allowed here; give {'run_dir' if key == 'run_dir' else 'models'} beside evaluation.")
    if config.evaluation.engine.kind is not EngineKind.vllm:
        problems.append(
            f"evaluation.engine.kind: {config.evaluation.engine.kind.value} came; only weights can be trained, so allowed is vllm."
        )
    if "direct" not in config.evaluation.variants:
        problems.append(f"evaluation.variants: {config.evaluation.variants} came; models are trained in the variant direct, so add it.")
    if "en" not in config.evaluation.data.languages:
        problems.append(
            f"evaluation.data.languages: {config.evaluation.data.languages} came; items are trained in their own text, so add en."
        )
    if TargetSide.none in config.target_sides and Method.sft not in config.methods:
        problems.append("target_sides: none came without methods: [sft, …]; the control is trained on instructions, which only SFT does.")
    if TargetSide.none in config.target_sides and (config.instructions.path is None or config.instructions.ratio == 0):
        problems.append("target_sides: none came without instructions, and the control is trained on nothing else; give instructions.path.")
    if not problems:
        for entry, recipe in models_of(config):
            problems += _recipe_problems(entry, recipe)
            problems += _worker_problems(entry, recipe, config)
    if problems:
        raise ConfigError("\n".join(problems))


def models_of(config: AlignConfig) -> list[tuple[Any, Recipe]]:
    """Each model's entry as `checkpoints` takes it, and its recipe. Raises `ConfigError`."""
    return [(_entry(model), _recipe(model, config)) for model in config.models]


def _entry(model: Any) -> Any:
    return {key: value for key, value in model.items() if key != "settings"} if isinstance(model, Mapping) else model


def _recipe(model: Any, config: AlignConfig) -> Recipe:
    common = Recipe(config.sft, config.dpo, config.lora, config.precision)
    settings = model.get("settings") if isinstance(model, Mapping) else None
    if settings is None:
        return common
    where = f"models: settings of {model.get('id') or model.get('path')}"
    if not isinstance(settings, Mapping) or (unknown := [str(key) for key in settings if key not in OWN_SETTINGS]):
        came = ", ".join(unknown) if isinstance(settings, Mapping) else repr(settings)
        raise ConfigError(f"{where}: {came} came; allowed are {', '.join(OWN_SETTINGS)}.")
    if problems := unknown_keys(AlignConfig, settings):
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    try:
        merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(replace(config, models=[])), dict(settings)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None
    assert isinstance(merged, AlignConfig)
    return Recipe(merged.sft, merged.dpo, merged.lora, merged.precision)


def _where(entry: Any) -> str:
    return f"models: {entry.get('id') or entry.get('path')}" if isinstance(entry, Mapping) else f"models: {entry}"


def _worker_problems(entry: Any, recipe: Recipe, config: AlignConfig) -> list[str]:
    """Batches that cannot be dealt out to the workers."""
    num_workers = config.resources.workers
    if num_workers == 1:
        return []
    problems = []
    for method in config.methods:
        stage, name = recipe.stage(method), method.value
        micro = stage.micro_batch_size or 1
        if stage.batch_size % (num_workers * micro):
            dealt = f"resources.workers ({num_workers})" + (f" × {name}.micro_batch_size ({micro})" if micro > 1 else "")
            problems.append(
                f"{_where(entry)}: {name}.batch_size: {stage.batch_size} is no multiple of {dealt}; it is the batch of all workers, "
                "who have equal shares of it. Change one of them."
            )
    return problems


def _recipe_problems(entry: Any, recipe: Recipe) -> list[str]:
    where = _where(entry)
    problems = []
    for name, stage in (("sft", recipe.sft), ("dpo", recipe.dpo)):
        problems += broken(stage, STAGE_RULES, f"{where}: {name}.")
        if stage.micro_batch_size is not None and stage.batch_size % stage.micro_batch_size:
            problems.append(
                f"{where}: {name}.batch_size: {stage.batch_size} is no multiple of {name}.micro_batch_size ({stage.micro_batch_size}); "
                "a batch is made of whole micro-batches."
            )
    if recipe.lora.r is None and (recipe.lora.alpha is not None or recipe.lora.target_modules is not None or recipe.lora.dropout):
        problems.append(
            f"{where}: lora.alpha, lora.dropout or lora.target_modules came without lora.r, so all weights would be trained and the "
            "adapter's settings ignored; give lora.r for an adapter, or leave them out."
        )
    if recipe.lora.r is None and isinstance(entry, Mapping) and entry.get("base") is not None:
        problems.append(
            f"{where}: is an adapter (it has a base), and all weights would be trained: adapter and full weights do not mix. Give lora.r "
            "to train a further adapter over the merged model, or name a model with full weights."
        )
    return problems
