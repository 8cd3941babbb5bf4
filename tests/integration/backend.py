"""What every cloud provider is asked for real; `test_<provider>_backend.py` names it, a wrong key and a wrong model."""

from __future__ import annotations

from typing import ClassVar

import pytest

from muse import models
from muse.errors import AuthError, NotFoundError
from tests.integration.live import CONTEXT, Live


@pytest.mark.live
class Backend:
    """The tests of one provider; the fixture `live` skips them where its key is missing."""

    provider: ClassVar[str]
    wrong_key: ClassVar[str]
    wrong_model: ClassVar[str]

    def test_text(self, live: Live) -> None:
        live.expect_text()

    async def test_async_text(self, live: Live) -> None:
        await live.expect_async_text()

    def test_history_and_system_text(self, live: Live) -> None:
        live.expect_history()

    def test_pictures(self, live: Live) -> None:
        live.expect_image()

    def test_a_schema(self, live: Live) -> None:
        live.expect_schema()

    def test_json(self, live: Live) -> None:
        live.expect_json()

    def test_thinking(self, live: Live) -> None:
        live.expect_thinking()

    def test_a_stream(self, live: Live) -> None:
        live.expect_stream()

    async def test_an_agent_run(self, live: Live) -> None:
        await live.expect_agent_run()

    @pytest.mark.usefixtures("live")
    def test_a_wrong_key_is_an_auth_error_without_the_key(self) -> None:
        with pytest.raises(AuthError) as caught:
            models.generate("Hello", CONTEXT, api_key=self.wrong_key)
        assert self.wrong_key not in str(caught.value)

    @pytest.mark.usefixtures("live")
    def test_an_unknown_model_is_not_found(self) -> None:
        with pytest.raises(NotFoundError):
            models.generate("Hello", CONTEXT, model=self.wrong_model)
