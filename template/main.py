"""Train an image classifier.

python main.py                          images in dataset/, or the demo if there are none
python main.py --data-dir ~/flowers     images elsewhere
python main.py --model my_cnn           a small network, from scratch
python main.py --resume checkpoint/RUN  continue an interrupted run; latest: the newest one
python main.py --help                   all options
"""

from config import Config, parse_config, start_run
from core.cli import STOPPED, run_script
from core.environment import keep_freed_memory, use_bf16
from core.stopwatch import Stopwatch
from Project import Project, Run, project


def main(config: Config, project: Project = project) -> Run:
    """Project → data → network → Poutyne Model → callbacks → fit → test → report."""
    stopwatch = Stopwatch()
    from poutyne import Model, set_seeds  # imported here, so that --help answers at once

    from callbacks import TRACKERS, get_callbacks, get_trackers, load_state
    from core.processes import init_distributed, wrap_ddp
    from data import choose_dataset, describe_split, get_loaders, load_data
    from data.balance import balance
    from data.check import check
    from data.image_cache import cache_images
    from evaluation.results import write_inputs, write_results
    from losses import get_loss
    from metrics import get_metrics
    from models import build_network, load_best
    from training.feature_cache import cache_features
    from training.lr_finder import find_lr
    from training.mixup import mix_batches
    from training.optimizers import make_optimizer
    from training.preflight import check_options, preflight
    from training.resolve import resolve
    from utils import get_device

    set_seeds(config.seed)
    device = get_device(config.device)
    keep_freed_memory(device)
    init_distributed(device, config.batch_size)
    check_options(config, device, TRACKERS)
    state = load_state(config)
    config = choose_dataset(config, project)
    data = load_data(config, project)
    stopwatch.lap("start-up")
    data = check(config, data, project.cache_dir)
    stopwatch.lap("checking images")
    network = build_network(config, len(data.classes), data.statistics, state and state["network"])
    config = resolve(config, data, network)  # every option that is still None gets its default
    network.use_bf16(use_bf16(config.bf16, network.frozen and not config.unfreeze_epoch, device))
    data = balance(config, data)
    loss = get_loss(config.loss, data.class_weights, device)
    metrics = get_metrics(config.metrics, data.task)
    data = cache_images(config, data, project.cache_dir)
    loaders = get_loaders(config, data)
    loaders = mix_batches(config, loaders, loss, device)
    preflight(config, data, network, loaders)  # every refusal happens before a run exists

    with (
        start_run(config, project, describe_split(data)) as run,
        get_trackers(config.trackers, run, project.env_file, loaders.val) as trackers,
    ):
        write_inputs(run, network, loaders, config.image_size)
        if config.compile:
            network.backbone.compile()
        optimizer = make_optimizer(config, network)
        model = Model(wrap_ddp(network, device), optimizer, loss, epoch_metrics=metrics, device=device)
        stopwatch.lap("start-up")
        train, val, _ = loaders
        train, val = cache_features(config, network, train, val, project.cache_dir)
        stopwatch.lap("computing features")
        if config.find_lr and not state:
            find_lr(model, train, run / "lr_finder.png")
            stopwatch.lap("find_lr")
        first_epoch = state["epoch"] + 1 if state else 1
        loaders.train.sampler.set_epoch(first_epoch)  # plots and the range test have counted as epochs
        model.fit_generator(
            train,
            val,
            epochs=0 if state and state["stopped"] else config.epochs,
            initial_epoch=first_epoch,
            batches_per_step=config.grad_accum_steps,
            callbacks=get_callbacks(config, network, run, trackers, state),
            verbose=False,
        )
        stopwatch.lap("training")
        load_best(network, run)
        write_results(run, model, config, loaders, trackers, stopwatch, first_epoch)
    return run


if __name__ == "__main__":
    run_script(main, parse_config, STOPPED)
