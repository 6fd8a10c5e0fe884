"""What mypy must refuse: `make lint` fails if it accepts one of these lines, since the ignore is then unused."""

import fastrec

fastrec.Interaction  # type: ignore[attr-defined]  # noqa: B018
fastrec.load("ml-1m").n_user  # type: ignore[attr-defined]  # noqa: B018
fastrec.load()  # type: ignore[call-arg]
fastrec.train("ml-1m", model="gmf", lr=0.01, layers=[64, 32], preset="ncf-mlp-64")
fastrec.train(batchsize=3)  # type: ignore[call-arg]
fastrec.train(model="svd")  # type: ignore[arg-type]
fastrec.train(lr="fast")  # type: ignore[arg-type]
fastrec.train(lr_h=0.1)  # type: ignore[call-arg]
fastrec.Config(optimizer="adm")  # type: ignore[arg-type]
fastrec.Config().override(dim="8")  # type: ignore[arg-type]
fastrec.Config().optim.learning_rate  # type: ignore[attr-defined]  # noqa: B018
