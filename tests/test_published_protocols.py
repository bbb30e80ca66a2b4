"Every training in the tables of the five published studies can be said as one Run; none is changed by being said."
import dataclasses, itertools, json
import pytest
from imgstudy.models.register import models
from imgstudy.runs import fold_runs, run_from_dict, run_id, run_to_dict, seed_runs
from imgstudy.study.create import create_run
from imgstudy.models.zoo import create_light

flat = dict(schedule='flat', wd=0.)
l2 = dict(decay_all=True)  # PyTorch's default: biases and norms decay too
stop = dict(epochs=200, min_epochs=30, patience=4, opt='adam', schedule='flat')  # the four experiments' procedure
cifar10 = dict(dataset='cifar10', augment='none', **stop)
cifar100 = dict(dataset='cifar100', bs=64, epochs=100, augment='none')
baseline = dict(cifar100, opt='sgd', momentum=0., lr=1e-4, **flat)
cycle = dict(cifar100, augment='cifar100', opt='sgd', clip=1., wd=1e-3, **l2)
cats = dict(dataset='cats_vs_dogs')

published = {
    'cats_dogs_optimizers': [dict(cats, model='lenet_modern', folds=5, lr=1e-3, schedule='flat', **o) for o in (
        dict(opt='sgd', wd=0.), dict(opt='adam', wd=0.), dict(opt='adamw', wd=5e-5))],
    'cats_dogs_architectures': [
        dict(cats, model='vit_b16_in21k', init='imagenet', opt='adamw', epochs=5),
        *(dict(cats, model=m, opt='adam', lr=2e-3, bs=bs, epochs=n, **flat) for m, bs, n in (
            ('convnext_tiny', 64, 30), ('convnext_small', 64, 30), ('convnext_base', 32, 50))),
        *(dict(cats, model=m, init='imagenet', lr=4e-5, bs=bs, epochs=n) for m, bs, n in (
            ('convnext_t_22k', 64, 6), ('convnext_s_22k', 64, 10), ('convnext_b_22k', 32, 9), ('convnext_b_22k_1k', 32, 9))),
        dict(cats, model='convnext_base', init='imagenet', lr=4e-5, bs=32, epochs=9),  # their own ConvNeXt, weights mapped
        dict(cats, model='convnext_b_22k_1k', init='imagenet', schedule='linear', epochs=5)],  # Hugging Face's Trainer
    'dog_breeds': [dict(dataset='stanford_dogs20', model=m, init='imagenet', tune='head', augment='none')
                   for m in ('convnext_b_22k_1k', 'convnext_t_1k', 'mobilenetv2_keras')],
    'cifar10_mlp': [dict(cifar10, model=m, lr=1e-3, bs=128, wd=0.01, normalize='none', **l2) for m in ('mlp_s', 'mlp_l')],
    'cifar10_cnn': [dict(cifar10, model='cnn3', bs=bs, lr=lr, wd=wd, dropout=p, **l2) | dict(augment=a)
                    for bs, lr, wd, p, a in itertools.product((64, 128), (.01, .001, .0001), (0., .01), (0., .5),
                                                              ('none', 'basic', 'erasing'))],
    'cifar10_vit': [dict(cifar10, model='vit', bs=bs, lr=lr, wd=0.) for bs in (64, 128) for lr in (.01, .001, .0001)],
    'cifar10_finetune': [dict(cifar10, model=m, init='imagenet', wd=0.) for m in ('mobilenetv3_s', 'efficientnetv2_s', 'resnet18_tv')],
    'cifar100_baseline': [dict(baseline, model=m) for m in ('perceptron2', 'lenet5')],
    'cifar100_schedules': [
        dict(cycle, model='perceptron2', schedule='one_cycle', lr_start=4e-6, lr=1e-4),
        dict(cycle, model='lenet5', schedule='one_cycle', lr_start=2e-4, lr=0.01, momentum=0.95, momentum_low=0.85),
        *(dict(cycle, model=m, schedule=s, lr=0.01) for m in ('perceptron2', 'lenet5') for s in ('exponential', 'cosine'))],
    'cifar100_deeper': [dict(cycle, model='perceptron3', schedule='one_cycle', lr_start=4e-6, lr=1e-4),
                        dict(cycle, model='lenet5_bn', schedule='one_cycle', lr_start=2e-4, lr=0.01)],
    'stl5_transfer': [dict(dataset='stl5', model='lenet5', init='run:cifar100-lenet5-s0-12345678')],
    'cifar10_scratch_vs_resnet18': [dict(dataset='cifar10', model='cnn_custom', augment='standard'),
                                    dict(dataset='cifar10', model='resnet18', init='imagenet', augment='standard')],
}


@pytest.mark.parametrize('study', published)
def test_is_said_as_runs(study):
    ids = set()
    for said in published[study]:
        run = create_run(**said)
        flat_run = {**run_to_dict(run), **run_to_dict(run)['recipe']}
        assert {k: flat_run[k] for k in said} == said, 'nothing is replaced by something easier'
        assert run_from_dict(json.loads(json.dumps(run_to_dict(run)))) == run
        ids.update(run_id(r) for f in fold_runs(run) for r in seed_runs(f, 3))
        if run.init == 'imagenet': assert models[run.model].weights, 'its weights have a name'
        create_light(run.model, 10, size=run.size, dropout=run.recipe.dropout)
    folds = 5 if study == 'cats_dogs_optimizers' else 1
    assert len(ids) == 3*folds*len(published[study]), 'every training has an id of its own'


def test_the_grid_is_whole():
    assert len(published['cifar10_cnn']) == 2*3*2*2*3
