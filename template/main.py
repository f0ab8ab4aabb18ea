"""Trains an image classifier.

python main.py                          the pictures in dataset/, or the demo where there are none
python main.py --data-dir ~/flowers     pictures elsewhere
python main.py --model my_cnn           a small network, from scratch
python main.py --resume checkpoint/RUN  goes on with a run that was interrupted
python main.py --help                   everything else
"""

import logging

from config import Config
from Project import Project, Run, project
from runs import choose_dataset, data_folder, parse_config, run_folder, suit
from utils import run_script

logger = logging.getLogger(__name__)


def main(config: Config, project: Project = project) -> Run:
    """Project → data → network → Poutyne Model → callbacks → fit → test → report.

    Args:
        config: the options.
        project: its folders.

    Returns:
        The run: paths of all that was written.

    Raises:
        UserError: options, data or weights will not do; nothing new is left in `checkpoint/` then.
    """
    # Imported here: --help answers at once, and the processes that read pictures do not import all of this again.
    import torch
    from poutyne import Model, set_seeds

    from callbacks import check_trackers, get_callbacks, get_trackers, load_state
    from data import get_data, get_transforms, make_loaders
    from data.balance import balance
    from data.check import check
    from find_lr import find_lr
    from losses import get_loss
    from metrics import METRICS, accuracy
    from models import build_network, check_batch, check_compile, summarize
    from models.mixing import Mixing
    from optim import make_optimizer
    from report import write_report
    from utils import get_device, lookup, show_dl

    set_seeds(config.seed)
    device = get_device(config.device)
    if config.compile:
        check_compile(device)
    metrics = {name: lookup(name, METRICS, "metric") for name in config.metrics}
    check_trackers(config.trackers)
    before = Run(config.resume) if config.resume else None
    state = load_state(before, config.epochs) if before else None
    if state and state["stopped"]:
        logger.info("This run has stopped early, after epoch %d: nothing is left to train.", state["epoch"])

    config = choose_dataset(config, project)
    folder = data_folder(config, project)
    data = get_data(config.dataset, folder, config.split, config.split_seed, before, config.fold)
    logger.info("%s: %s", config.dataset, data)
    config = suit(config, data)
    train_transform, val_transform = get_transforms(config.image_size, config.augmentation)
    statistics = check(data, project.cache_dir, config).statistics
    class_weights, image_weights = balance(config.balance, data)
    loss = get_loss(config.loss, class_weights, device)
    train_dl, val_dl, test_dl = make_loaders(
        data,
        train_transform,
        val_transform,
        batch_size=config.batch_size,
        seed=config.seed,
        weights=image_weights,
        num_workers=config.num_workers,
    )

    network, config = build_network(config, len(data.classes), statistics, device, resumed=state is not None)
    if config.mix != "none":
        network.mixing = Mixing(config.mix, len(data.classes))
        loss = network.mixing.mixed(loss)
    check_batch(network, val_dl, smallest=len(data.train) % config.batch_size or config.batch_size)

    with (
        run_folder(config, project, data) as run,
        get_trackers(config.trackers, run, project.env_file, val_dl) as trackers,
    ):
        show_dl(train_dl, file=run / "train_batch.png")
        show_dl(val_dl, file=run / "val_batch.png")
        (run / "model.txt").write_text(summarize(network, config.image_size), encoding="utf-8")
        print((run / "model.txt").read_text(encoding="utf-8"))

        if config.compile:
            network.backbone.compile()
        model = Model(
            network,
            make_optimizer(config, network),
            loss,
            batch_metrics=[accuracy(data.multilabel)],
            epoch_metrics=[(name, metric(len(data.classes), data.multilabel)) for name, metric in metrics.items()],
            device=device,
        )
        if config.find_lr and not state:
            find_lr(model, train_dl, run / "lr_finder.png")
        train_dl.sampler.epoch = first_epoch = state["epoch"] + 1 if state else 1
        model.fit_generator(
            train_dl,
            val_dl,
            epochs=0 if state and state["stopped"] else config.epochs,
            initial_epoch=first_epoch,
            batches_per_step=config.accumulate,
            callbacks=get_callbacks(config, network, run, trackers, state),
            verbose=False,
        )

        network.load_state_dict(torch.load(run.best, map_location=device, weights_only=True))
        network.bf16 = False  # final scores are those that evaluate.py and predict.py compute
        write_report(run, model, get_loss(config.loss), val_dl, test_dl, trackers)
    return run


if __name__ == "__main__":
    run_script(main, parse_config)
