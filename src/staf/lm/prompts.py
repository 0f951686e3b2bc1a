"""How a prompt is written: plain, as in the papers, or as turns of the base's chat template.

    plain   Query: ...        chat   <|im_start|>user
            Context: ...             Query: ...
            Answer:                  Context: ...<|im_end|>
                                     <|im_start|>assistant
                                     Answer:

The texts around an item are taken from the template once, so that whatever is cut is part of a context.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from staf.data.example import ANSWER, prompt_of
from staf.errors import ConfigError

_TEXTS = [f'Query: {n} < 5 & "a"?\n\nContext:  é {{{{ b }}}}\n\t- {n}.' if n % 2 else f"{ANSWER} c; {n}" for n in range(1, 6)]
"""Messages of user and assistant with what a template may change: spaces, line breaks, signs."""
_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}\n"
"""Before a template that would write the day's date, on which no result may depend; Llama 3 has this one by default."""


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """The texts around the query and context of an item, and around its answer."""

    name: str = "plain"
    """plain or chat"""
    before: str = ""
    """before the first query: system message, start of the user's turn"""
    between: str = "\n"
    """between a context and 'Answer:'"""
    after: str = "\n\n"
    """between an answer and the next query"""
    end_token: int | None = None
    """that ends the assistant's turn"""

    def prompt(self, query: str, context: str) -> tuple[str, int, int]:
        """The prompt of an item, and the first and last character of its context; a turn has no white space at its end."""
        body = prompt_of(query, context).removesuffix(f"\n{ANSWER}")
        text = self.before + (body if self.name == "plain" else body.rstrip())
        return f"{text}{self.between}{ANSWER}", len(self.before) + len(body) - len(context), len(text)

    def shot(self, query: str, context: str, answer: str) -> str:
        """An item with its answer, as it stands before the next query."""
        return f"{self.prompt(query, context)[0].removeprefix(self.before)} {answer}{self.after}"

    def encoded(self, text: str | list[str], tokenizer: Any, **options: bool) -> Any:
        """What the tokenizer gives for prompts; a chat template writes the start token itself."""
        return tokenizer(text, add_special_tokens=self.name == "plain", **options)


PLAIN = PromptFormat()


def prompt_format_of(wanted: str, tokenizer: Any, base: str) -> PromptFormat:
    """The format of a name: plain, chat, or auto, which is chat where the tokenizer has a chat template.

    Args:
        base: its name, for messages.

    Raises:
        ConfigError: chat is wanted and there is no template, or one that changes a text or writes equal turns differently.
    """
    if wanted == "plain" or (wanted == "auto" and not tokenizer.chat_template):
        return PLAIN
    if not tokenizer.chat_template:
        raise ConfigError(
            f"prompt_format = chat: the tokenizer of {base} has no chat template. Use prompt_format = plain, or auto, or give "
            "a base that was tuned to chat."
        )
    try:
        one, three = _rendered(1, tokenizer), _rendered(5, tokenizer)
        found = re.fullmatch("(.*?)".join(["", *map(re.escape, _TEXTS), ""]), three, re.DOTALL)
        if found is None:
            raise ValueError("it changes the texts of messages")
        before, between, after, *again, last = found.groups()
        opens_alike = between.startswith(last) and not between.removeprefix(last).strip()  # but for a space before the answer
        if again != [between, after] or one != before + _TEXTS[0] + last or not opens_alike:
            raise ValueError("it writes one turn differently from the next, or starts an answer with a text of its own")
    except Exception as error:  # a template is a program and raises what it likes
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"prompt_format = {wanted}: the chat template of {base} cannot be used ({reason}). Use prompt_format = plain."
        ) from error
    tokens = tokenizer(after, add_special_tokens=False)["input_ids"]
    end_token = next((token for token in tokens if token in tokenizer.added_tokens_decoder), None)
    return PromptFormat("chat", before, between, after, end_token)


def _rendered(count: int, tokenizer: Any) -> str:
    """The first messages of `_TEXTS` by the chat template, up to the start of the assistant's next turn."""
    messages = [
        {"role": role, "content": text} for role, text in zip(cycle(("user", "assistant")), _TEXTS[:count], strict=False)
    ]
    template = _DATE + tokenizer.get_chat_template()
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True))
