"""How many tokens of a prompt and its answer the served model takes."""

from dataclasses import replace

import pytest

from codex_ml.serve.api_errors import ApiError
from codex_ml.serve.api_requests import CompletionRequest
from codex_ml.serve.prompt_encoder import PromptEncoder


@pytest.mark.parametrize(("context", "seen"), [(None, 96), (20, 20), (500, 96)])
def test_no_position_is_used_that_the_model_cannot_reach_or_never_saw(tiny, context, seen):
    """Prompt and answer share the positions; the last token of an answer is never read."""
    encoder = PromptEncoder(replace(tiny, context=context))
    prompt = len(encoder.wanted(CompletionRequest(prompt="a", max_tokens=1), ["a"], 0)[0].ids)
    most = seen - prompt + 1
    assert len(encoder.wanted(CompletionRequest(prompt="a", max_tokens=most), ["a"], 0)) == 1
    with pytest.raises(ApiError, match=f"the model sees {seen} tokens at once"):
        encoder.wanted(CompletionRequest(prompt="a", max_tokens=most + 1), ["a"], 0)
