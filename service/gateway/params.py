"""What a request may contain, field by field. A field that is not here is refused; a type that is not here, too.

Left out on purpose: `priority` and `cache_salt` (ours to set), `chat_template` and `prompt_embeds` (code and tensors
from strangers), images, audio and video (the engine would fetch their URLs), grammars and beam search (unbounded work).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_N = 16
MAX_PROMPTS = 16

Text = Annotated[str, Meta(max_length=2_000_000)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Penalty = Annotated[float, Meta(ge=-2, le=2)] | None | UnsetType
Count = Annotated[int, Meta(ge=0, le=2**31)]
TokenId = Annotated[int, Meta(ge=0, le=2**31)]
TokenIds = Annotated[list[TokenId], Meta(max_length=1024)] | None | UnsetType
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Flag = bool | None | UnsetType
Label = Annotated[str, Meta(max_length=512)] | None | UnsetType
Schema = dict[str, Any] | None | UnsetType


class Closed(Struct, forbid_unknown_fields=True, frozen=True):
    """A JSON object with known fields only; absent ones stay absent when it is written again."""


class TextPart(Closed, tag_field="type", tag="text"):
    text: Text


class RefusalPart(Closed, tag_field="type", tag="refusal"):
    refusal: Text


class CalledFunction(Closed):
    name: Name
    arguments: Text


class ToolCall(Closed):
    function: CalledFunction
    id: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    type: Literal["function"] = "function"
    index: int | UnsetType = UNSET


class ChatMessage(Closed):
    """One message; the fields that assistants' replies carry are taken, so that a client may send a reply back."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart | RefusalPart], Meta(max_length=256)] | None | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=256)] | None | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None | UnsetType = UNSET
    tool_call_id: Annotated[str, Meta(max_length=256)] | None | UnsetType = UNSET
    refusal: Text | None | UnsetType = UNSET
    reasoning: Text | None | UnsetType = UNSET
    reasoning_content: Text | None | UnsetType = UNSET
    annotations: Annotated[list[Any], Meta(max_length=0)] | None | UnsetType = UNSET
    audio: None | UnsetType = UNSET
    function_call: None | UnsetType = UNSET


class StreamOptions(Closed):
    include_usage: bool | None = None
    continuous_usage_stats: bool | UnsetType | None = UNSET
    include_obfuscation: bool | UnsetType | None = UNSET


class JsonSchema(Closed):
    name: Name
    schema: Schema = UNSET
    strict: Flag = UNSET
    description: Text | None | UnsetType = UNSET


class TextFormat(Closed, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(Closed, tag_field="type", tag="json_object"):
    pass


class JsonSchemaFormat(Closed, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Closed):
    """vLLM's own form; `regex` is bounded like every pattern in a schema."""

    json: Schema = UNSET
    regex: Annotated[str, Meta(max_length=512)] | None | UnsetType = UNSET
    choice: Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(max_length=256)] | None | UnsetType = UNSET
    json_object: Flag = UNSET


class FunctionSpec(Closed):
    name: Name
    description: Text | None | UnsetType = UNSET
    parameters: Schema = UNSET
    strict: Flag = UNSET


class Tool(Closed):
    function: FunctionSpec
    type: Literal["function"] = "function"


class NamedFunction(Closed):
    name: Name


class NamedTool(Closed):
    function: NamedFunction
    type: Literal["function"] = "function"


class TemplateSwitches(Closed):
    """The two chat-template arguments that reasoning models share; a template takes any others from its owner only."""

    enable_thinking: bool | UnsetType = UNSET
    thinking: bool | UnsetType = UNSET


class Common(Closed, kw_only=True):
    """What chat and plain completions share."""

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    stream: bool | None | UnsetType = UNSET
    stream_options: StreamOptions | None | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=MAX_N)] | None | UnsetType = UNSET
    max_tokens: Count | None | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | None | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | None | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=-1, le=2**31)] | None | UnsetType = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    frequency_penalty: Penalty = UNSET
    presence_penalty: Penalty = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None | UnsetType = UNSET
    stop: StopText | Annotated[list[StopText], Meta(max_length=16)] | None | UnsetType = UNSET
    stop_token_ids: TokenIds = UNSET
    include_stop_str_in_output: Flag = UNSET
    ignore_eos: bool | UnsetType = UNSET
    min_tokens: Count | UnsetType = UNSET
    skip_special_tokens: bool | UnsetType = UNSET
    logit_bias: (
        Annotated[
            dict[Annotated[str, Meta(pattern="^[0-9]{1,10}$")], Annotated[float, Meta(ge=-100, le=100)]],
            Meta(max_length=1024),
        ]
        | None
        | UnsetType
    ) = UNSET
    response_format: ResponseFormat | None | UnsetType = UNSET
    structured_outputs: StructuredOutputs | None | UnsetType = UNSET
    user: Label = UNSET


class ChatParams(Common, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=2048)]
    max_completion_tokens: Count | None | UnsetType = UNSET
    logprobs: Flag = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None | UnsetType = UNSET
    tools: Annotated[list[Tool], Meta(max_length=128)] | None | UnsetType = UNSET
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None | UnsetType = UNSET
    parallel_tool_calls: Flag = UNSET
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None | UnsetType = UNSET
    include_reasoning: bool | UnsetType = UNSET
    chat_template_kwargs: TemplateSwitches | None | UnsetType = UNSET
    # OpenAI's own bookkeeping: taken, so that its clients work unchanged, and not passed on.
    store: Flag = UNSET
    metadata: Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None | UnsetType = UNSET
    service_tier: Label = UNSET
    safety_identifier: Label = UNSET
    prompt_cache_key: Label = UNSET
    prompt_cache_retention: Label = UNSET
    verbosity: Label = UNSET
    modalities: list[Literal["text"]] | None | UnsetType = UNSET


class CompletionParams(Common, kw_only=True):
    prompt: (
        Text
        | Annotated[list[Text | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
    )
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None | UnsetType = UNSET
    echo: Flag = UNSET
    suffix: Text | None | UnsetType = UNSET
    best_of: Literal[1] | None | UnsetType = UNSET


NOT_PASSED_ON = {
    ChatParams: (
        "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "verbosity", "modalities",
    ),
    CompletionParams: ("user", "best_of"),
}  # fmt: skip
