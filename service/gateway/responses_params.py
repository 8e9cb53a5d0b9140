"""What a request to /v1/responses may contain. Each stands alone: there is nothing that the engine has to remember.

Taken and not passed on: `store` (replies are never stored, whatever it says), `safety_identifier`,
`prompt_cache_retention`, `stream_options`. Refused: `previous_response_id`, `conversation`, `prompt`, `background`,
since a stored reply is anybody's who knows its id; tools that the engine would run by itself (web search, code, MCP).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from service.gateway.params import (
    Closed,
    Count,
    Effort,
    Flag,
    JsonObjectFormat,
    Label,
    LogitBias,
    Maybe,
    Metadata,
    MinP,
    Model,
    Name,
    Penalty,
    Repetition,
    Schema,
    Seed,
    StopText,
    StopTexts,
    StructuredOutputs,
    Temperature,
    TemplateSwitches,
    Text,
    TextFormat,
    TokenIds,
    TopK,
    TopP,
)

Id = Annotated[str, Meta(max_length=256)]
Status = Maybe[Literal["in_progress", "completed", "incomplete"]]


class InputText(Closed, tag_field="type", tag="input_text"):
    text: Text


class TopLogprob(Closed):
    token: Text
    logprob: float
    bytes: Maybe[Annotated[list[int], Meta(max_length=256)]] = UNSET


class TokenLogprob(TopLogprob):
    top_logprobs: Maybe[Annotated[list[TopLogprob], Meta(max_length=64)]] = UNSET


class OutputText(Closed, tag_field="type", tag="output_text"):
    """As replies carry it, so that a client may send one back."""

    text: Text
    annotations: Maybe[Annotated[list[Any], Meta(max_length=0)]] = UNSET
    logprobs: Maybe[list[TokenLogprob]] = UNSET


class Refusal(Closed, tag_field="type", tag="refusal"):
    refusal: Text


class ReasoningText(Closed, tag_field="type", tag="reasoning_text"):
    text: Text


class SummaryText(Closed, tag_field="type", tag="summary_text"):
    text: Text


Parts = Annotated[list[InputText | OutputText | Refusal | ReasoningText | SummaryText], Meta(max_length=256)]


class Item(Closed):
    """A message, a call of a tool, its output, or a reasoning; which fields go together is the engine's to check."""

    type: Maybe[
        Literal[
            "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
            "reasoning",
        ]
    ] = UNSET  # fmt: skip
    role: Maybe[Literal["user", "assistant", "system", "developer"]] = UNSET
    content: Maybe[Text | Parts] = UNSET
    id: Maybe[Id] = UNSET
    status: Status = UNSET
    phase: Maybe[Literal["commentary", "final_answer"]] = UNSET
    call_id: Maybe[Id] = UNSET
    name: Maybe[Name] = UNSET
    namespace: Maybe[Name] = UNSET
    arguments: Maybe[Text] = UNSET
    input: Maybe[Text] = UNSET
    output: Maybe[Text | Parts] = UNSET
    summary: Maybe[Parts] = UNSET
    encrypted_content: Maybe[Text] = UNSET
    caller: UnsetType | None = UNSET


class SchemaFormat(Closed, tag_field="type", tag="json_schema"):
    name: Name
    schema: Schema = UNSET
    strict: Flag = UNSET
    description: Maybe[Text] = UNSET


class TextConfig(Closed):
    format: Maybe[TextFormat | JsonObjectFormat | SchemaFormat] = UNSET
    verbosity: Maybe[Literal["low", "medium", "high"]] = UNSET


class Reasoning(Closed):
    effort: Maybe[Effort] = UNSET
    summary: Maybe[Literal["auto", "concise", "detailed"]] = UNSET
    generate_summary: Maybe[Literal["auto", "concise", "detailed"]] = UNSET


class FunctionTool(Closed, tag_field="type", tag="function"):
    name: Name
    description: Maybe[Text] = UNSET
    parameters: Schema = UNSET
    strict: Flag = UNSET


class CustomTool(Closed, tag_field="type", tag="custom"):
    name: Name
    description: Maybe[Text] = UNSET
    format: Maybe[TextFormat] = UNSET


class NamedFunction(Closed, tag_field="type", tag="function"):
    name: Name


class NamedCustom(Closed, tag_field="type", tag="custom"):
    name: Name


class NoObfuscation(Closed):
    include_obfuscation: Maybe[bool] = UNSET


class ResponsesParams(Closed, kw_only=True):
    model: Model
    input: Text | Annotated[list[Item], Meta(min_length=1, max_length=2048)]
    instructions: Maybe[Text] = UNSET
    stream: Maybe[bool] = UNSET
    max_output_tokens: Maybe[Count] = UNSET
    max_tool_calls: Maybe[Count] = UNSET
    temperature: Temperature = UNSET
    top_p: TopP = UNSET
    top_logprobs: Maybe[Annotated[int, Meta(ge=0, le=20)]] = UNSET
    include: Maybe[list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]]] = UNSET
    text: Maybe[TextConfig] = UNSET
    reasoning: Maybe[Reasoning] = UNSET
    tools: Annotated[list[FunctionTool | CustomTool], Meta(max_length=128)] | UnsetType = UNSET
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | NamedCustom | UnsetType = UNSET
    parallel_tool_calls: Flag = UNSET
    truncation: Maybe[Literal["auto", "disabled"]] = UNSET
    metadata: Metadata = UNSET
    user: Label = UNSET
    prompt_cache_key: Label = UNSET
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | UnsetType = UNSET
    # vLLM's own
    top_k: TopK = UNSET
    min_p: MinP = UNSET
    presence_penalty: Penalty = UNSET
    frequency_penalty: Penalty = UNSET
    repetition_penalty: Repetition = UNSET
    seed: Seed = UNSET
    stop: Maybe[StopText | StopTexts] = UNSET
    stop_token_ids: TokenIds = UNSET
    ignore_eos: bool | UnsetType = UNSET
    skip_special_tokens: bool | UnsetType = UNSET
    include_stop_str_in_output: bool | UnsetType = UNSET
    include_reasoning: bool | UnsetType = UNSET
    logit_bias: Maybe[LogitBias] = UNSET
    structured_outputs: Maybe[StructuredOutputs] = UNSET
    chat_template_kwargs: Maybe[TemplateSwitches] = UNSET
    # What needs a memory: only its absence is accepted.
    store: Flag = UNSET
    background: Flag = UNSET
    previous_response_id: Label = UNSET
    conversation: Any = UNSET
    prompt: Any = UNSET
    # OpenAI's own bookkeeping, not passed on.
    safety_identifier: Label = UNSET
    prompt_cache_retention: Label = UNSET
    stream_options: Maybe[NoObfuscation] = UNSET
