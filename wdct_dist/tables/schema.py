"""The columns of every table in a run directory: a contract that other programs read."""

from __future__ import annotations

import pyarrow as pa

INTERVAL = (("ci_low", pa.float64()), ("ci_high", pa.float64()), ("level", pa.float64()))
"""The columns of a confidence interval: its ends, and the level that it has."""

ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("domain", pa.string()),
        ("num_options", pa.uint8()),
        ("word_question", pa.string()),
        ("word_options", pa.list_(pa.string())),
        ("deed_question", pa.string()),
        ("deed_options", pa.list_(pa.string())),
        ("correct_option", pa.int8()),
        ("flags", pa.list_(pa.string())),
        # translations, paraphrases and demonstrations: the item's whole record as JSON, so that nothing is lost
        ("record", pa.string()),
    ]
)

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("item_id", pa.string()),
        ("domain", pa.string()),
        ("side", pa.string()),
        ("variant", pa.string()),
        ("language", pa.string()),
        ("permutation", pa.list_(pa.uint8())),
        ("labels", pa.list_(pa.string())),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("mode", pa.string()),
        # beyond the contract: what engines need for reasoning, for replies of several tokens and for base models
        ("answer_cue", pa.string()),
        ("stop", pa.list_(pa.string())),
        ("reply_tokens", pa.uint16()),
        ("plain_cue", pa.string()),
    ]
)

ANSWERS = pa.schema(
    [
        ("checkpoint_id", pa.string()),
        ("checkpoint_digest", pa.string()),
        ("prompt_id", pa.string()),
        ("trial", pa.uint16()),
        ("option_logprobs", pa.list_(pa.float64())),
        ("label_mass", pa.float64()),
        ("text", pa.string()),
        ("reasoning", pa.string()),
        ("rendered_digest", pa.string()),
        ("finish_reason", pa.string()),
        ("num_prompt_tokens", pa.int32()),
        ("num_cached_tokens", pa.int32()),
        ("num_output_tokens", pa.int32()),
        ("error", pa.string()),
        # beyond the contract: the label that stands in the prompt's answer slot
        ("said", pa.string()),
        # beyond the contract: where an API shows the most probable tokens alone and an option is not among them, option_logprobs is null,
        # and these are, by option, the log of what was seen of it (null: nothing) and the log of what it is at most
        ("option_lower", pa.list_(pa.float64())),
        ("option_upper", pa.list_(pa.float64())),
    ]
)

SCORES_ITEMS = pa.schema(
    [
        ("checkpoint_id", pa.string()),
        ("variant", pa.string()),
        ("language", pa.string()),
        ("trial", pa.uint16()),
        ("item_id", pa.string()),
        ("domain", pa.string()),
        ("num_options", pa.uint8()),
        ("word_probs", pa.list_(pa.float64())),
        ("deed_probs", pa.list_(pa.float64())),
        ("word_option", pa.int8()),
        ("deed_option", pa.int8()),
        ("match", pa.float64()),
        ("match_debiased", pa.bool_()),
        ("pcs", pa.float64()),
        ("pcs_debiased", pa.float64()),
        ("word_tie", pa.bool_()),
        ("deed_tie", pa.bool_()),
        ("word_stable", pa.bool_()),
        ("deed_stable", pa.bool_()),
        ("word_correct", pa.bool_()),
        ("deed_correct", pa.bool_()),
        ("parse_status_word", pa.string()),
        ("parse_status_deed", pa.string()),
        ("label_mass_word", pa.float64()),
        ("label_mass_deed", pa.float64()),
        # beyond the contract: the rules of `wdct check` that found the item suspicious
        ("flags", pa.list_(pa.string())),
        # and `match` and `pcs` over the pairs whose two questions show the options in the same order, and over the others
        ("match_same_order", pa.float64()),
        ("match_different_order", pa.float64()),
        ("pcs_same_order", pa.float64()),
        ("pcs_different_order", pa.float64()),
    ]
)

SCORES_SUMMARY = pa.schema(
    [
        ("checkpoint_id", pa.string()),
        ("variant", pa.string()),
        ("language", pa.string()),
        ("domain", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        *INTERVAL,
        ("n", pa.int64()),
    ]
)

SCORES_DIFFERENCES = pa.schema(
    [
        # checkpoint | variant | language: what left and right are
        ("kind", pa.string()),
        ("left", pa.string()),
        ("right", pa.string()),
        # what both sides have in common; null for what they differ in
        ("checkpoint_id", pa.string()),
        ("variant", pa.string()),
        ("language", pa.string()),
        ("domain", pa.string()),
        ("metric", pa.string()),
        # left - right
        ("difference", pa.float64()),
        *INTERVAL,
        ("p_value", pa.float64()),
        ("p_holm", pa.float64()),
        ("family_size", pa.int64()),
        ("n", pa.int64()),
        ("n_discordant", pa.int64()),
        ("n_left_only", pa.int64()),
        ("n_undecided", pa.int64()),
        ("noise", pa.float64()),
        ("below_noise", pa.bool_()),
    ]
)

SCORES_EFFECTS = pa.schema(
    [
        ("checkpoint_id", pa.string()),
        ("language", pa.string()),
        ("family", pa.string()),
        ("domain", pa.string()),
        ("factor", pa.string()),
        ("factor_level", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        # the value less the mean over the factor's levels; the interval is that of the effect
        ("effect", pa.float64()),
        *INTERVAL,
        ("n", pa.int64()),
    ]
)

SCORES_NOISE = pa.schema(
    [
        ("checkpoint_id", pa.string()),
        ("variant", pa.string()),
        ("language", pa.string()),
        ("domain", pa.string()),
        ("metric", pa.string()),
        ("floor", pa.float64()),
        ("largest", pa.float64()),
        ("typical", pa.float64()),
        # share of the items whose value changed at all between any two evaluations
        ("changed", pa.float64()),
        ("level", pa.float64()),
        ("n", pa.int64()),
        ("num_repeats", pa.int64()),
    ]
)

PREFERENCES = pa.schema(
    [
        # the checkpoint whose answers these are
        ("baseline_id", pa.string()),
        ("target_side", pa.string()),
        ("item_id", pa.string()),
        ("domain", pa.string()),
        # train | held_out; null for an item that is left out
        ("split", pa.string()),
        # on the target side: the answer (rejected) and what is to become the answer (chosen)
        ("baseline_option", pa.int8()),
        ("target_option", pa.int8()),
        # null: no answer, or a tie
        ("other_side_baseline_option", pa.int8()),
        # why the item is left out; null for an item that is not
        ("left_out", pa.string()),
    ]
)

TRAINING = pa.schema(
    [
        ("branch", pa.string()),
        # sft | dpo
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("epoch", pa.float64()),
        # what was not logged at a step is null
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("reward_margin", pa.float64()),
        ("reward_accuracy", pa.float64()),
        ("grad_norm", pa.float64()),
    ]
)

SCORES_CHANGE = pa.schema(
    [
        ("checkpoint_id", pa.string()),
        ("baseline_id", pa.string()),
        ("branch", pa.string()),
        ("target_side", pa.string()),
        # sft | dpo
        ("method", pa.string()),
        ("seed", pa.int64()),
        # null: the end of the stage
        ("epoch", pa.int64()),
        # trained on no item, and held against what was trained from the same baseline
        ("control", pa.bool_()),
        ("variant", pa.string()),
        ("language", pa.string()),
        # train | held_out: the aligned items; all: every item evaluated (consistency alone)
        ("split", pa.string()),
        ("domain", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        *INTERVAL,
        # items that the value is over
        ("n", pa.int64()),
        # change rates alone. Of n: answers that are now the target option, those that are a tie now, and those that have no answer now
        ("n_changed", pa.int64()),
        ("n_tied", pa.int64()),
        ("n_no_answer", pa.int64()),
        # aligned items that are not in n: the answer was the target option before, or there was none
        ("n_already", pa.int64()),
        ("n_no_answer_before", pa.int64()),
        # McNemar's exact test of the decisions before and after; corrected by Holm's method over family_size tests
        ("p_value", pa.float64()),
        ("p_holm", pa.float64()),
        ("family_size", pa.int64()),
    ]
)

IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")
