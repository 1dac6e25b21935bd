"""A loaded model that is asked for texts: prompts and answers pass the text policy, the same seed gives the same text.

Used by: `codex-ml generate`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.cli.generated_text import GeneratedAnswer, Said
from codex_ml.core.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from codex_ml.cli.model_and_data import LoadedModel, ModelChoice
    from codex_ml.inference.generation import Generation, Prompt
    from codex_ml.inference.sampling import Sampling
    from codex_ml.policy.filters import TextFilter
    from codex_ml.policy.streaming import AnswerFilter

MOST_TOKENS = 256  # of an answer, unless --max-tokens says otherwise or the model sees fewer at once
BATCH = 16


@dataclass
class Speed:
    """How fast the model wrote.

    Attributes:
        to_first: seconds until the first token; None where several texts were written at once.
        per_second: tokens per second, without the time until the first one if that is known.
    """

    tokens: int = 0
    seconds: float = 0.0
    to_first: float | None = None

    @property
    def per_second(self) -> float:
        first = self.to_first or 0.0
        count = self.tokens - 1 if self.to_first is not None and self.tokens > 1 else self.tokens
        left = self.seconds - first if self.tokens > 1 else self.seconds
        return count / left if left > 0 else 0.0

    @property
    def words(self) -> str:
        """As one line for people."""
        first = "" if self.to_first is None else f"{self.to_first:.2f} s to the first, "
        return f"{self.tokens} tokens, {first}{self.per_second:.0f} tokens/s"


class TextSession:
    """Asks one model.

    Args:
        loaded: the model.
        screen: the text policy; None with --no-policy.
        sampling: as the options say.
        most: the number of --max-tokens; None: `MOST_TOKENS`, or less where the model sees fewer.
        say: is called with each line for people.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        screen: TextFilter | None,
        sampling: Sampling,
        most: int | None,
        *,
        say: Callable[[str], None],
    ) -> None:
        context = loaded.length if loaded.training else None  # the model has seen no later position in training
        self.loaded, self.sampling, self._screen = loaded, replace(sampling, context=context), screen
        self._most, self._say = most, say
        self.speed = Speed()

    def screened(self, text: str) -> tuple[str, Said]:
        """A prompt after the policy, and what it decided.

        Raises:
            CheckFailed: when the policy refuses the prompt.
        """
        if self._screen is None:
            return text, "not screened"
        found = self._screen.screen_input(text)
        if found.decision == "refuse":
            raise CheckFailed(f"the policy refuses the prompt: {found.why}")
        if found.decision == "redact":
            self._say(f"policy: the prompt was {found.why}")
        return found.text, found.decision

    def continued(self, text: str) -> Prompt:
        """The prompt of which the model writes the continuation."""
        from codex_ml.inference.generation import REQUEST_KEY, Prompt

        tokenizer = self.loaded.tokenizer
        return self._fitting(Prompt([tokenizer.begin, *tokenizer.encode(text).tolist()], REQUEST_KEY), "the prompt")

    def answered(self, messages: Sequence[dict[str, Any]]) -> Prompt:
        """The prompt for the next answer of a conversation, as the chat template writes it."""
        from codex_ml.inference.generation import REQUEST_KEY, Prompt
        from codex_ml.tokens.chat import encode_prompt, turn_ends

        tokenizer = self.loaded.tokenizer
        ids = encode_prompt(tokenizer, messages).tolist()
        return self._fitting(Prompt(ids, REQUEST_KEY, ends=tuple(turn_ends(tokenizer))), "the conversation")

    def _fitting(self, prompt: Prompt, what: str) -> Prompt:
        """The prompt, if the model can see it with the answer; without --max-tokens a shorter answer may do.

        Raises:
            UserError: with the numbers of tokens, and what to do.
        """
        from codex_ml.inference.generation import prompt_room

        room = prompt_room(self.loaded.model, replace(self.sampling, max_tokens=self._most or 1))
        have = len(prompt.ids)
        if room is not None and have > room:
            asked = f" and --max-tokens {self._most}" if self._most else ""
            seen = room + (self._most or 1) - 1
            lower = " or lower --max-tokens" if self._most else ""
            raise UserError(f"{what} has {have} tokens{asked}; the model sees {seen} at once; shorten it{lower}")
        if self._most is None:
            pair = self.loaded.model.config.is_encoder_decoder
            least = MOST_TOKENS if room is None else min(MOST_TOKENS, room if pair else room - have + 1)
            self.sampling = replace(self.sampling, max_tokens=least)
        return prompt

    def write(self, prompt: Prompt, before: str, *, seed: int, show: Callable[[str], bool]) -> GeneratedAnswer:
        """Write one text, and show its characters as the policy lets them pass.

        Args:
            before: the prompt as text, for the policy.
            show: is called with text that may be shown; returns whether anybody reads it.
        """
        from codex_ml.inference.text_stream import TextStream

        stream = TextStream(self.loaded.model, self.loaded.tokenizer, prompt, self.sampling, seed=seed)
        screen, began, shown, first = self._filter(before), time.perf_counter(), list[str](), None
        count = 0
        for piece in stream:
            count += 1
            first = time.perf_counter() - began if first is None else first
            left = screen.push(piece) if screen else piece
            shown.append(left)
            if (left and not show(left)) or (screen and screen.decision == "refuse"):
                break
        rest = screen.finish() if screen and stream.generation else ""
        show(rest)
        self.speed = Speed(count, time.perf_counter() - began, first)
        ended = stream.generation.finished if stream.generation else "interrupted"
        return self._answer(0, "".join([*shown, rest]), (ended, count), screen)

    def write_all(self, prompt: Prompt, before: str, *, seed: int, count: int) -> Iterator[GeneratedAnswer]:
        """Write several texts, in batches, each the one that `write` shows for its number."""
        from codex_ml.inference.generation import generate

        if count == 1:
            yield self.write(prompt, before, seed=seed, show=lambda text: True)
            return
        prompts = (replace(prompt, sample=number) for number in range(count))
        began, tokens = time.perf_counter(), 0
        texts = generate(
            self.loaded.model, self.loaded.tokenizer, prompts, self.sampling, seed=seed, batch_size=min(count, BATCH)
        )
        for number, text in enumerate(texts):
            tokens += len(text.tokens)
            self.speed = Speed(tokens, time.perf_counter() - began)
            yield self._whole(number, text, before)

    def _whole(self, number: int, text: Generation, before: str) -> GeneratedAnswer:
        screen = self._filter(before)
        shown = screen.push(text.text) + screen.finish() if screen else text.text
        return self._answer(number, shown, (text.finished, len(text.tokens)), screen)

    def _filter(self, before: str) -> AnswerFilter | None:
        from codex_ml.policy.streaming import AnswerFilter

        return None if self._screen is None else AnswerFilter(self._screen, before)

    def _answer(self, number: int, text: str, end: tuple[Any, int], screen: AnswerFilter | None) -> GeneratedAnswer:
        if screen and screen.decision != "allow":
            what = ", ".join(f"{count} x {rule}" for rule, count in screen.rules.items())
            verb = {"redact": "redacted", "refuse": "refused"}[screen.decision]
            self._say(f"policy: the answer was {verb}: {what or screen.why}")
        return GeneratedAnswer(
            sample=number,
            text="" if screen and screen.decision == "refuse" else text,
            finished=end[0],
            tokens=end[1],
            decision=screen.decision if screen else "not screened",
            rules=screen.rules if screen else {},
        )


def model_choice(path: Path, base: Path | None) -> ModelChoice:
    """The model in `path`, or the adapter in it with its base model: `base`, else the one that it names.

    Raises:
        UserError: when an adapter has no base model here, or a whole model is given one.
    """
    from codex_ml.cli.model_and_data import ModelChoice
    from codex_ml.train.model.local_adapter import CONFIG, base_of

    if not (path / CONFIG).is_file():
        if base is not None:
            raise UserError(f"--base names the model of an adapter, but {path} has no {CONFIG}; leave --base out")
        return ModelChoice(path, None, "fp32")
    named = Path(base_of(path)) if base is None else base
    if not named.exists():
        raise UserError(f"the base model {named} of the adapter {path} does not exist; name its folder with --base")
    return ModelChoice(path, None, "fp32", named)


def open_session(
    choice: ModelChoice,
    sampling: Sampling,
    most: int | None,
    scratch: Path,
    *,
    policy: bool,
    say: Callable[[str], None],
) -> TextSession:
    """Load the policy, then a model of any origin, and refuse the network.

    Raises:
        UserError: when one of them cannot be used.
    """
    from codex_ml.cli.measure_model import POLICY, go_offline

    go_offline()
    from codex_ml.cli.model_and_data import load_any_model
    from codex_ml.cli.param_rules import load_params
    from codex_ml.policy.filters import load_filter

    params = load_params()
    screen = load_filter(*map(Path, POLICY)) if policy else None
    loaded = load_any_model(choice, params.runtime, None, scratch)
    return TextSession(loaded, screen, sampling, most, say=say)
