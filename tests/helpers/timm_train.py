"""A training script for timm's models that calls timm as its own train.py does; images and labels are random."""

import argparse
import contextlib

import torch
from timm import utils
from timm.data import Mixup, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask, load_task_ema_checkpoint, resume_task_checkpoint

CLASSES, IMAGES = 5, 16


def read_arguments():
    parser = argparse.ArgumentParser()
    for name in ("--model", "--out", "--resume", "--device"):
        parser.add_argument(name)
    for name in ("--img-size", "--epochs", "--batch-size", "--grad-accum-steps", "--stop-after"):
        parser.add_argument(name, type=int, default=None)
    for name in ("--layer-decay", "--mixup"):
        parser.add_argument(name, type=float, default=None)
    for name in ("--model-ema", "--no-ddp-bb"):
        parser.add_argument(name, action="store_true")
    return parser.parse_args()


def draw_batches(args, rank, world):
    """The batches of a process in one epoch."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(IMAGES, 3, args.img_size, args.img_size, generator=generator)
    labels = torch.randint(0, CLASSES, (IMAGES,), generator=generator)
    return [*zip(images[rank::world].split(args.batch_size), labels[rank::world].split(args.batch_size), strict=True)]


def main():
    args = read_arguments()
    device = utils.init_distributed_device(args)
    utils.random_seed(0, args.rank)
    model = create_model(args.model, num_classes=CLASSES)
    resolve_data_config(vars(args), model=model)
    mixup = Mixup(mixup_alpha=args.mixup, num_classes=CLASSES) if args.mixup else None
    criterion = SoftTargetCrossEntropy() if mixup else LabelSmoothingCrossEntropy(0.1)
    task = ClassificationTask(model=model, criterion=criterion, device=device, verbose=False)
    optimizer = create_optimizer_v2(task.get_trainable_module(), "sgd", lr=0.01, layer_decay=args.layer_decay)
    start = resume_task_checkpoint(task, args.resume, optimizer, log_info=False) if args.resume else 0
    if args.model_ema:
        task.setup_ema(decay=0.5)
        if args.resume:
            load_task_ema_checkpoint(task, args.resume)
    if args.distributed:
        task.prepare_distributed(device_ids=[device], broadcast_buffers=not args.no_ddp_bb)
    batches = draw_batches(args, args.rank, args.world_size)
    accumulate = args.grad_accum_steps or 1
    updates = len(batches) // accumulate
    scheduler, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=args.epochs, warmup_epochs=0, updates_per_epoch=updates
    )
    if start:
        scheduler.step(start)
    losses = []
    for epoch in range(start, min(epochs, args.stop_after or epochs)):
        task.train()
        for number, (images, labels) in enumerate(batches):
            is_update = (number + 1) % accumulate == 0
            images, labels = mixup(images, labels) if mixup else (images, labels)
            with contextlib.nullcontext() if is_update else task.no_sync():
                result = task(images, labels)
                (result["loss"] / accumulate).backward()
            losses.append(result["loss"].item())
            if is_update:
                optimizer.step()
                optimizer.zero_grad()
                if args.model_ema:
                    task.update_ema(step=epoch * updates + (number + 1) // accumulate)
        scheduler.step(epoch + 1)
        task.eval()
        with torch.no_grad():
            assert task.get_eval_model()(batches[0][0]).shape == (len(batches[0][0]), CLASSES)
    saver = utils.CheckpointSaver(
        task.get_trainable_module(), optimizer, task=task, checkpoint_dir=args.out, recovery_dir=args.out
    )
    saver._save(f"{args.out}/{args.rank}.pth.tar", epochs - 1 if args.stop_after is None else args.stop_after - 1)
    torch.save(losses, f"{args.out}/losses-{args.rank}.pt")


if __name__ == "__main__":
    main()
