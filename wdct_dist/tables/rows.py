"""Records to Arrow tables and back. One place, so that a column has one meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyarrow as pa

from wdct_dist.engine.protocol import Response
from wdct_dist.items.record import item_to_record
from wdct_dist.items.types import Item
from wdct_dist.prompts.types import Message, Prompt
from wdct_dist.tables import schema
from wdct_dist.text import replace_surrogates


def items_batch(items: Sequence[Item]) -> pa.RecordBatch:
    columns: list[Sequence[object]] = [
        [item.item_id for item in items],
        [item.domain for item in items],
        [item.num_options for item in items],
        [item.questions["word"].question for item in items],
        [list(item.questions["word"].options) for item in items],
        [item.questions["deed"].question for item in items],
        [list(item.questions["deed"].options) for item in items],
        [item.correct_option for item in items],
        [list(item.flags) for item in items],
        [json.dumps(item_to_record(item), ensure_ascii=False) for item in items],
    ]
    return _batch(columns, schema.ITEMS)


def prompts_batch(prompts: Sequence[Prompt]) -> pa.RecordBatch:
    columns: list[Sequence[object]] = [
        [prompt.prompt_id for prompt in prompts],
        [prompt.item_id for prompt in prompts],
        [prompt.domain for prompt in prompts],
        [prompt.side for prompt in prompts],
        [prompt.variant for prompt in prompts],
        [prompt.language for prompt in prompts],
        [list(prompt.permutation) for prompt in prompts],
        [list(prompt.labels) for prompt in prompts],
        [[{"role": m.role, "content": m.content} for m in prompt.messages] for prompt in prompts],
        [prompt.mode for prompt in prompts],
        [prompt.answer_cue for prompt in prompts],
        [list(prompt.stop) for prompt in prompts],
        [prompt.reply_tokens for prompt in prompts],
        [prompt.plain_cue for prompt in prompts],
    ]
    return _batch(columns, schema.PROMPTS)


def prompts_from(batch: pa.RecordBatch) -> list[Prompt]:
    columns = (batch.column(name).to_pylist() for name in schema.PROMPTS.names)
    return [
        Prompt(
            prompt_id,
            item_id,
            domain,
            side,
            variant,
            language,
            tuple(permutation),
            tuple(labels),
            tuple(Message(message["role"], message["content"]) for message in messages),
            mode,
            answer_cue,
            tuple(stop),
            reply_tokens,
            plain_cue,
        )
        for (
            prompt_id,
            item_id,
            domain,
            side,
            variant,
            language,
            permutation,
            labels,
            messages,
            mode,
            answer_cue,
            stop,
            reply_tokens,
            plain_cue,
        ) in zip(*columns, strict=True)
    ]


def answers_table(checkpoint_id: str, checkpoint_digest: str, responses: Sequence[Response]) -> pa.Table:
    """One row a response, in order. Shape: [len(responses), columns of `schema.ANSWERS`]."""
    count = len(responses)
    columns: list[list[object]] = [[checkpoint_id] * count, [checkpoint_digest] * count]
    columns += [[getattr(response, name) for response in responses] for name in schema.ANSWERS.names[2:]]
    return pa.Table.from_batches([_batch(columns, schema.ANSWERS)])


def _batch(columns: Sequence[Sequence[object]], table_schema: pa.Schema) -> pa.RecordBatch:
    arrays = [_array(column, entry.type) for column, entry in zip(columns, table_schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=table_schema)


def _array(column: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Return the column as an array. Text that is not valid Unicode costs its row nothing but the characters at fault."""
    try:
        return pa.array(column, type=kind)
    except UnicodeEncodeError:
        return pa.array([_valid(value) for value in column], type=kind)


def _valid(value: object) -> object:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, Mapping):
        return {key: _valid(part) for key, part in value.items()}
    return [_valid(part) for part in value] if isinstance(value, list | tuple) else value
