"""What mypy must refuse: `make lint` fails if it accepts one of these lines, since the ignore is then unused."""

import fastrec

fastrec.Interaction  # type: ignore[attr-defined]  # noqa: B018
fastrec.load("ml-1m").n_user  # type: ignore[attr-defined]  # noqa: B018
fastrec.load()  # type: ignore[call-arg]
