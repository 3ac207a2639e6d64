"""The keys of one provider."""

from mcpgate.config.llm import ProviderConfig
from mcpgate.providers.keys import KeyRing


def ring(*secrets: str) -> KeyRing:
    keys = tuple({"api_key": secret, "models": "a*"} for secret in secrets)
    return KeyRing(ProviderConfig.model_validate({"type": "openai", "keys": keys}))


def test_a_key_is_found_again_by_its_mark_whatever_its_place_and_models() -> None:
    before, after = ring("sk-one", "sk-two"), ring("sk-three", "sk-two", "sk-one")
    for key in before.all:
        assert [found.secret for found in after.candidates("", key.mark)] == [key.secret]
        assert key.secret not in key.mark and len(key.mark) == 16


def test_a_key_that_rests_is_not_replaced_by_one_that_sees_other_objects() -> None:
    keys = ring("sk-one", "sk-two")
    keys.rest(keys.all[0], 401, None)
    assert keys.candidates("a", keys.all[0].mark) == [keys.all[0]]


def test_any_key_may_ask_for_what_a_key_made_that_is_gone() -> None:
    assert {key.secret for key in ring("sk-two", "sk-three").candidates("a", ring("sk-one").all[0].mark)} == {
        "sk-two",
        "sk-three",
    }
