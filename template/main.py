"""Trains an image classifier.

python main.py                          the pictures in dataset/, or the demo where there are none
python main.py --data-dir ~/flowers     pictures elsewhere
python main.py --model my_cnn           a small network, from scratch
python main.py --resume checkpoint/RUN  continues an interrupted run; latest: the newest
python main.py --help                   everything else
"""

import logging
from dataclasses import replace

from config import Config, describe, parse_config
from core.cli import STOPPED, run_script
from core.stopwatch import Stopwatch
from Project import Project, Run, project

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
    stopwatch = Stopwatch()
    # Imported here: --help answers at once, and the processes that read pictures do not import all of this again.
    import torch
    from poutyne import Model, set_seeds

    from callbacks import check_trackers, get_callbacks, get_trackers, load_state
    from core.errors import lookup
    from core.processes import connect, rank, synchronize, wrap
    from core.run_folder import create_run, new_name, resume_run
    from data import choose_dataset, data_folder, describe_split, get_data, get_transforms, make_loaders
    from data.balance import balance
    from data.check import check
    from data.image_cache import cache_images
    from evaluation.results import write_report, write_start
    from losses import LOSSES, check_loss, get_loss
    from metrics import METRICS, accuracy, get_metrics
    from models import build_network
    from training.feature_cache import cache_features, choose_views
    from training.lr_finder import check_find_lr, find_lr
    from training.mixup import mix_batches
    from training.optimizers import make_optimizer
    from training.preflight import check_batch, check_compile
    from training.resolve import resolve
    from utils import get_device

    set_seeds(config.seed)
    device = get_device(config.device)
    connect(device, config.batch_size)
    if config.compile:
        check_compile(device)
    check_find_lr(config.find_lr and not config.resume)
    for name in config.metrics:
        lookup(name, METRICS, "metric")
    if config.loss:
        lookup(config.loss, LOSSES, "loss")
    check_trackers(config.trackers)
    before = Run(config.resume) if config.resume else None
    state = load_state(before, config.epochs, config.patience) if before else None
    if state and state["stopped"]:
        logger.info("This run has stopped early, after epoch %d; a larger --patience continues it.", state["epoch"])

    config = choose_dataset(config, project)
    folder = data_folder(config, project)
    data = get_data(config.dataset, folder, config.split, config.split_seed, before, config.fold)
    logger.info("%s: %s", config.dataset, data)
    stopwatch.lap("start-up")
    findings = check(data, project.cache_dir, config)
    stopwatch.lap("checking images")
    network, config = build_network(config, len(data.classes), findings.statistics, device, state and state["network"])
    config = resolve(config, data, network)
    check_loss(config.loss, len(data.classes), data.multilabel)
    config = choose_views(config, network)
    train_transform, val_transform = get_transforms(config.image_size, config.augmentation, config.resize)
    class_weights, image_weights = balance(config.balance, data)
    loss = get_loss(config.loss, class_weights, device)
    if config.keep_pictures:
        data = cache_images(data, train_transform, val_transform, project.cache_dir)
    train_dl, val_dl, test_dl = make_loaders(
        data,
        train_transform,
        val_transform,
        batch_size=config.batch_size,
        seed=config.seed,
        weights=image_weights,
        num_workers=config.num_workers,
    )

    train_dl = mix_batches(config.mix, train_dl, loss, len(data.classes), device)
    check_batch(network, val_dl, smallest=len(train_dl.sampler) % train_dl.batch_size or train_dl.batch_size)

    if config.resume:
        folder = resume_run(config.resume, describe(config))
    else:
        config = replace(config, run_name=config.run_name or new_name(project, config.model))
        folder = create_run(project, config.run_name, {"config.json": describe(config), **describe_split(data)})
    with (
        folder as run,
        get_trackers(config.trackers, run, project.env_file, val_dl) as trackers,
    ):
        if rank() == 0:
            write_start(run, network, train_dl, val_dl, config.image_size, findings)
        if config.compile:
            network.backbone.compile()
        model = Model(
            wrap(network, device),
            make_optimizer(config, network),
            loss,
            batch_metrics=[accuracy(data.multilabel)],
            epoch_metrics=get_metrics(config.metrics, len(data.classes), data.multilabel),
            device=device,
        )
        stopwatch.lap("start-up")
        train, val = train_dl, val_dl
        val = cache_features(network, val_dl, project.cache_dir) if network.frozen else val
        if config.views != "fresh":
            train = cache_features(network, train_dl, project.cache_dir, config.views, config.seed)
        stopwatch.lap("computing features")
        if config.find_lr and not state:
            find_lr(model, train, run / "lr_finder.png")
            stopwatch.lap("find_lr")
        first_epoch = state["epoch"] + 1 if state else 1
        train_dl.sampler.set_epoch(first_epoch)  # drawing a batch and finding a rate count as epochs
        model.fit_generator(
            train,
            val,
            epochs=0 if state and state["stopped"] else config.epochs,
            initial_epoch=first_epoch,
            batches_per_step=config.accumulate,
            callbacks=get_callbacks(config, network, run, trackers, state),
            verbose=False,
        )
        stopwatch.lap("training")

        if rank() == 0:
            network.load_state_dict(torch.load(run.best, map_location=device, weights_only=True))
        synchronize(network)
        network.bf16 = False  # final scores are those that evaluate.py and predict.py compute
        write_report(run, model, get_loss(config.loss), config.risk, val_dl, test_dl, trackers, stopwatch, first_epoch)
    return run


if __name__ == "__main__":
    run_script(main, parse_config, STOPPED)
