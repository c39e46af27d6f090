#!/usr/bin/env bash
# The trainings that docs/ablations.md compares. All begin from one run's UNet and PoseNet, with a Face Encoder and ID
# adapters that know nothing, and take the same steps on the same clips. Stop it and start it again: it goes on.
set -euo pipefail
cd "$(dirname "$0")/../.."

world=${WORLD:-outputs/drawn_world}
start=${START:-1200}  # steps of the run that they go on from
steps=${STEPS:-700}

[ -e "$world/ablation_base" ] || python -m tools.drawn_world base \
    --arcface "$world/arcface" --vae "$world/vae" --image-encoder "$world/image_encoder" \
    --animator "$world/run/checkpoints/$start/weights" --output "$world/ablation_base"

train() {
    local name=$1
    shift
    [ ! -e "$world/runs/$name/checkpoint" ] || return 0
    python train.py configs/train_drawn_people.py --init-from "$world/ablation_base" --output "$world/runs/$name/run" \
        --data.dataset "$world/dataset" --data.encoded --steps "$steps" --resume "$@"
    python -m tools.drawn_world ship --arcface "$world/arcface" \
        --weights "$world/runs/$name/run/checkpoints/$steps/weights" --output "$world/runs/$name/checkpoint"
}

train full
train no_id --model.id-injection none
train no_refinement --model.no-refine-face-tokens
train addition --model.id-injection addition
train no_masks --objective.face-weight 0
