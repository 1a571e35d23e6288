"""A planted fault: `confide serve` that logs what it saves."""

from __future__ import annotations

import logging
from typing import Any

from confide.configs.save import ConfigWriter

save = ConfigWriter.save


async def talkative(self: ConfigWriter, draft: Any, **more: Any) -> Any:
    logging.getLogger("confide").info("saving %s", draft.configuration)
    return await save(self, draft, **more)


ConfigWriter.save = talkative  # type: ignore[method-assign]

if __name__ == "__main__":
    from confide.cli import main

    main()
