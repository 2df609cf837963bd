"""The chat API client under its earlier name; it stands in `emis_interp.http.chat_api`."""

from emis_interp.http.chat_api import JUDGE, SAMPLER, ChatApi, Pace, Role, is_passing

__all__ = ["JUDGE", "SAMPLER", "ChatApi", "Pace", "Role", "is_passing"]
