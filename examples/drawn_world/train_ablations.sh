#!/usr/bin/env bash
# The trainings that docs/ablations.md compares, the full model's first: what ships. All go on from the UNet and PoseNet of
# configs/train_drawn_people.py's run, with a new Face Encoder and new keys and values of the ID adapters, for as many steps
# on the same clips. Stop it and start it again: it goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."

world=outputs/drawn_world
steps=700

[ -e $world/ablation_base ] ||
    python -m examples.drawn_world base --animator $world/run/checkpoints/1200/weights --output $world/ablation_base

train() {
    local name=$1
    shift
    [ ! -e $world/runs/$name/checkpoint ] || return 0
    python train.py configs/train_drawn_people.py --init-from $world/ablation_base --output $world/runs/$name/run \
        --data.encoded --steps $steps --resume "$@"
    python -m examples.drawn_world ship --weights $world/runs/$name/run/checkpoints/$steps/weights \
        --output $world/runs/$name/checkpoint
}

train full
train no_id --model.id-injection none
train no_refinement --model.no-refine-face-tokens
train addition --model.id-injection addition
train no_masks --objective.face-weight 0
