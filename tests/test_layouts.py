"What the folders of one's own images mean: read as their owner means them, or refused with the choices."
import os
import numpy as np, pytest
from PIL import Image
from imgstudy.core import StudyError
from imgstudy.data.datasets import find_images, read_images
from imgstudy.data.layouts import read_folder, say_splits
from imgstudy.data.split import load_data, split_items
from imgstudy.runs import Run, run_id
from imgstudy.study.create import create_run


def put(root, places, n=6, name='{}.png'):
    "`n` empty files in each of `places`, written as 'a b train/c', with ~ for blanks in names."
    for place in places.split():
        folder = root/place.replace('~', ' ')
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(n): (folder/name.format(i)).write_bytes(b'')
    return root


def images(root, places, n=6, seed=0):
    "As `put`, with small images."
    rng = np.random.default_rng(seed)
    for place in places.split():
        (root/place).mkdir(parents=True, exist_ok=True)
        for i in range(n): Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(root/place/f'{i}.png')
    return root


def sizes(items): return items.split.value_counts().to_dict()


# places; classes; images in each split; words that are said
read = {
    'intel_kaggle': ('seg_train/seg_train/sea seg_train/seg_train/forest seg_test/seg_test/sea seg_test/seg_test/forest seg_pred/seg_pred',
                     'forest sea', dict(train=12, test=12), 'your seg_test/ is used to test; seg_pred/ has no labels and is left for predict'),
    'intel_kaggle_2': ('seg_train/seg_train/sea seg_train/seg_train/forest seg_test/seg_test/sea seg_test/seg_test/forest',
                       'forest sea', dict(train=12, test=12), 'seg_test/ is used to test'),
    'training_set': ('training_set/cats training_set/dogs test_set/cats test_set/dogs', 'cats dogs', dict(train=12, test=12), ''),
    'training_set_one_missing': ('training_set/a training_set/b training_set/c test_set/a test_set/b', 'a b c', dict(train=18, test=12),
                                 'no images of c to test'),
    'training_set_unlabelled_test': ('training_set/a training_set/b test_set', 'a b', dict(train=12), 'test_set/ has no labels'),
    'Train_data': ('Train_data/a Train_data/b Test_data/a Test_data/b', 'a b', dict(train=12, test=12), ''),
    'dev_eval': ('dev/a dev/b eval/a eval/b', 'a b', dict(train=12, test=12), 'your dev/ is used to train; your eval/ to test'),
    'train_dev': ('train/a train/b dev/a dev/b', 'a b', dict(train=12, valid=12), 'your dev/ is used to validate'),
    'train_valid_test': ('train/a train/b valid/a valid/b test/a test/b', 'a b', dict(train=12, valid=12, test=12),
                         'your valid/ is used to validate; your test/ to test'),
    'wrapped': ('photos/a photos/b', 'a b', {'': 12}, ''),
    'wrapped_train': ('photos/train/a photos/train/b photos/test/a photos/test/b', 'a b', dict(train=12, test=12), ''),
    'doubled': ('train/train/a train/train/b test/test/a test/test/b', 'a b', dict(train=12, test=12), ''),
    'two_cases': ('Cat cat Dog', 'Cat Dog', {'': 18}, "'Cat' and 'cat' are one class, 'Cat'"),
    'trailing_blank': ('cat cat~ dog', 'cat dog', {'': 18}, "'cat' and 'cat ' are one class"),
    'train_Cat_test_cat': ('train/Cat train/Dog test/cat test/dog', 'Cat Dog', dict(train=12, test=12), 'are one class'),
    'nfc_nfd': ('train/caf\u00e9 train/bar test/cafe\u0301 test/bar', 'bar caf\u00e9', dict(train=12, test=12), 'are one class'),
    'nfc_nfd_flat': ('caf\u00e9 cafe\u0301 bar', 'bar caf\u00e9', {'': 18}, 'are one class'),
    'images_and_annotations': ('Images/a Images/b Annotation/a Annotation/b', 'a b', {'': 12}, 'left out: 12 pictures in Annotation/'),
    'class_called_test': ('test control', 'control test', {'': 12}, ''),
    'class_called_val': ('val/x car/x', 'car val', {'': 12}, ''),
    'runs_inside': ('a b runs/x lost+found', 'a b', {'': 12}, 'left out: '),
    'only_train': ('train/a train/b test', 'a b', dict(train=12), 'test/ has no labels'),
    'test_and_unlabelled': ('train/a train/b test/a test/b unlabeled/x', 'a b', dict(train=12, test=12), 'unlabeled/ has no labels'),
    'test_one_class': ('train/a train/b test/a', 'a b', dict(train=12, test=6), 'no images of b to test'),
    'loose': ('. a b', 'a b', {'': 12}, 'left out: 6 pictures beside the folders (0.png, 1.png, 2.png and 3 more)'),
    # beyond those handed down
    'trainval': ('trainval/a trainval/b test/a test/b', 'a b', dict(train=12, test=12), 'your trainval/ is used to train; your test/ to test'),
    'train_val': ('train_val/a train_val/b test/a', 'a b', dict(train=12, test=6), 'your train_val/ is used to train; your test/ to test'),
    'TrainVal': ('TrainVal/a TrainVal/b Test/a', 'a b', dict(train=12, test=6), 'your TrainVal/ is used to train; your Test/ to test'),
    'trainval_nested': ('VOC/trainval/trainval/a VOC/trainval/trainval/b VOC/test/test/a', 'a b', dict(train=12, test=6), 'your trainval/ is used to train'),
    'trainval_prefix': ('flowers_trainval/a flowers_trainval/b flowers_test/a', 'a b', dict(train=12, test=6), 'your flowers_trainval/ is used to train'),
    'trainval_years': ('VOC2007_trainval/a VOC2007_trainval/b VOC2007_test/a', 'a b', dict(train=12, test=6), 'your VOC2007_trainval/ is used to train'),
    'trainval_set': ('train-valid-set/a train-valid-set/b test-set/a', 'a b', dict(train=12, test=6), 'your train-valid-set/ is used to train'),
    'trainval_and': ('Training~and~validation/a Training~and~validation/b Testing/a', 'a b', dict(train=12, test=6), 'is used to train; your Testing/ to test'),
    'trainval_unlabelled': ('trainval/a trainval/b test', 'a b', dict(train=12), 'test/ has no labels and is left for predict'),
    'trainval_eval': ('trainval/a trainval/b eval/a', 'a b', dict(train=12, test=6), 'your trainval/ is used to train; your eval/ to test'),
    'trainval_in_classes': ('cat/trainval cat/test dog/trainval dog/test', 'cat dog', dict(train=12, test=12), 'your trainval/ is used to train'),
    'trainval_alone': ('trainval/a trainval/b', 'a b', {'': 12}, ''),
    'class_called_trainval': ('trainval bus car', 'bus car trainval', {'': 18}, ''),
    'class_called_trainval_with_folders': ('trainval/x bus/x', 'bus trainval', {'': 12}, 'belongs to the class it is in'),
    'class_called_trainval_in_splits': ('train/trainval train/bus test/trainval', 'bus trainval', dict(train=12, test=6), 'no images of bus to test'),
    'class_called_trainval_in_trainval': ('trainval/trainval trainval/bus test/trainval test/bus', 'bus trainval', dict(train=12, test=12), ''),
    'train_valley': ('train_valley bus_valley', 'bus_valley train_valley', {'': 12}, ''),
    'years': ('train2017/a train2017/b val2017/a val2017/b', 'a b', dict(train=12, valid=12), 'your val2017/ is used to validate'),
    'flowers': ('flowers_train/a flowers_train/b flowers_test/a flowers_test/b', 'a b', dict(train=12, test=12), ''),
    'numbered': ('1_TrainSet/a 1_TrainSet/b 2_TestSet/a 2_TestSet/b', 'a b', dict(train=12, test=12), ''),
    'fer': ('Training/a Training/b PublicTest/a PublicTest/b PrivateTest/a PrivateTest/b', 'a b', dict(train=12, valid=12, test=12),
            'your PublicTest/ is used to validate; your PrivateTest/ to test'),
    'train_eval_test': ('train/a train/b eval/a test/b', 'a b', dict(train=12, valid=6, test=6), 'your eval/ is used to validate'),
    'holdout': ('train/a train/b hold-out/a hold-out/b', 'a b', dict(train=12, test=12), ''),
    'only_valid_unlabelled': ('train/a train/b val', 'a b', dict(train=12), 'val/ has no labels'),
    'test_images': ('train/a train/b test/images', 'a b', dict(train=12), 'test/ has no labels'),
    'deep_wrapper': ('x/y/z/a x/y/z/b', 'a b', {'': 12}, ''),
    'one_split': ('train/a train/b', 'a b', {'': 12}, ''),
    'thrice': ('train/train/train/a train/train/train/b val/val/a val/val/b', 'a b', dict(train=12, valid=12), ''),
    'images_split': ('images/train/a images/train/b images/test/a labels/train/a labels/test/a', 'a b', dict(train=12, test=6),
                     'left out: 12 pictures in labels/'),
    'images_in_splits': ('train/images/a train/images/b train/masks/a test/images/a', 'a b', dict(train=12, test=6), 'left out: 6 pictures'),
    'vehicles': ('train bus car', 'bus car train', {'': 18}, ''),
    'vehicles_with_folders': ('train/x bus/x', 'bus train', {'': 12}, 'what is in bus/x, train/x belongs to the class it is in'),
    'tubes': ('test_tube training_shoe', 'test_tube training_shoe', {'': 12}, ''),
    'departments': ('dev sales', 'dev sales', {'': 12}, ''),
    'docs_beside': ('train/a train/b test/a test/b docs', 'a b', dict(train=12, test=12), 'left out: 6 pictures in docs/'),
    'class_split': ('cat/train cat/test dog/train dog/test', 'cat dog', dict(train=12, test=12), 'your test/ is used to test'),
    'underscores': ('train/great_dane train/pug test/Great~Dane test/pug', 'great_dane pug', dict(train=12, test=12), 'are one class'),
    'hidden_class': ('.a b c', 'b c', {'': 12}, 'left out: 6 pictures in hidden folders (.a/)'),
    'originals_of_picasa': ('a b a/.picasaoriginals', 'a b', {'': 12}, 'left out: 6 pictures in hidden folders (a/.picasaoriginals/)'),
    'hidden_splits': ('train/a train/b test/a test/b .thumbnails train/.cache', 'a b', dict(train=12, test=12), 'left out: 12 pictures in hidden folders'),
    'venv': ('a b venv/lib/x node_modules/y .git/z', 'a b', {'': 12}, 'left out: '),
}


@pytest.mark.parametrize('name', read)
def test_read_as_it_is_meant(name, tmp_path):
    places, classes, splits, words = read[name]
    found = read_folder(put(tmp_path/'photos', places))
    said = '; '.join(say_splits(found.names) + found.said)
    assert sorted(set(found.items.label)) == sorted(classes.split())
    assert sizes(found.items) == splits and words in said
    assert words or 'left out' not in said, 'nothing is left out in silence, and nothing else is'


refused = {
    'Data_train_Data_test': ('Train_data/a Train_data/b Test_data/a Test_data/b Test_data/c', "The class 'c' is in the test folder but not in"),
    'covid': ('COVID/images COVID/masks Normal/images Normal/masks', "layout='class/images': only what is in images/"),
    'by_patient': ('ill/p1 ill/p2 well/p3 well/p4', "layout='class/group': the same, and each inner folder (p1, p2, p3 and 1 more) is a group"),
    'by_camera': ('ok/cam1 ok/cam2 defect/cam1 defect/cam2', "layout='class': 2 classes (defect, ok)"),
    'kinds': ('animal/cat animal/dog vehicle/car vehicle/bus', "layout='*/class': the 4 inner folders are the classes"),
    'one_nested': ('a b b/old', 'such as b/old'),
    'patients_in_splits': ('train/a/p1 train/a/p2 train/b/p3 train/b/p4 test/a/p5 test/a/p6 test/b/p7', "layout='split/class/group'"),
    'unzipped_beside': ('a b photos/a photos/b', 'such as photos/a'),
    'flat_splits': ('train test', "called like splits (test, train), but there are no class folders"),
    'images_masks': ('images masks', 'not like classes'),
    'images_masks_in_splits': ('train/images train/masks test/images test/masks', 'not like classes'),
    'extra': ('train/a train/b test/a test/b extra/a extra/b', "a folder 'extra' with the same classes"),
    'no_train': ('val/a val/b test/a test/b', "has a folder 'test' but no folder train"),
    'two_trains': ('train/a train/b Training/a Training/b', 'two folders for one split'),
    'strange_test': ('train/a train/b test/c test/d', "The class 'c' is in the test folder but not in the train folder"),
    'one_class': ('a', 'only one class'),
    'a_picture_beside_a_wrapper': ('. photos/a photos/b', 'photos/photos?'),
    'one_class_of_train': ('train/a test/a', 'only one class'),
    'flat': ('.', 'There are no class folders'),
    'trainval_and_val': ('trainval/a trainval/b val/a test/a', "take 'trainval' away; if not, call it train"),
    'trainval_and_train': ('train/a train/b val/a train_val/a train_val/b test/a', "'train_val', which is called like training and validation images together"),
    'trainval_and_dev': ('trainval/a trainval/b dev/a', "and 'dev'. If they hold the same images"),
    'flat_trainval': ('trainval test', 'called like splits (test, trainval), but there are no class folders'),
    'trainval_beside_a_riddle': ('trainval/a trainval/b test/a extra/a', "a folder 'extra' with the same classes"),
    'flat_trainval_cat': ('trainval_cat trainval_dog test_cat test_dog', 'hold split and class'),
}


@pytest.mark.parametrize('name', refused)
def test_refused_with_what_to_do(name, tmp_path):
    places, words = refused[name]
    with pytest.raises(StudyError) as e: read_folder(put(tmp_path/'photos', places))
    assert words in str(e.value)


@pytest.mark.parametrize('layout, places, classes, splits, groups', [
    ('class', 'ill/p1 ill/p2 well/p3', 'ill well', {'': 18}, None),
    ('class/group', 'ill/p1 ill/p2 well/p3', 'ill well', {'': 18}, 'p1 p2 p3'),
    ('class/group', 'photos/ill/p1 photos/ill/p2 photos/well/p3', 'ill well', {'': 18}, 'p1 p2 p3'),
    ('*/class', 'animal/cat animal/dog vehicle/car', 'car cat dog', {'': 18}, None),
    ('class/images', 'COVID/images COVID/masks Normal/images', 'COVID Normal', {'': 12}, None),
    ('split/class/group', 'train/a/p1 train/b/p2 test/a/p3 test/b/p4', 'a b', dict(train=12, test=12), 'p1 p2 p3 p4'),
    ('split/class', 'train/a train/b test/a extra/a', 'a b', dict(train=12, test=6), None),
    ('class/split', 'cat/train cat/test dog/train dog/dev', 'cat dog', dict(train=12, test=6, valid=6), None),
    ('class', 'train test', 'test train', {'': 12}, None),
    ('images/class', 'images/a images/b other/c', 'a b', {'': 12}, None),
    ('group/class', 'cam1/ok cam1/bad cam2/ok', 'bad ok', {'': 18}, 'cam1 cam2'),
])
def test_a_layout_says_it_outright(layout, places, classes, splits, groups, tmp_path):
    found = read_folder(put(tmp_path/'photos', places), layout)
    assert ' '.join(sorted(set(found.items.label))) == classes and sizes(found.items) == splits
    assert (' '.join(sorted(set(found.items.group))) if 'group' in found.items else None) == groups


@pytest.mark.parametrize('rule, name, labels', [
    (r'name:^([a-z]+)\.\d', 'cat.{}.jpg', {'cat', 'dog'}), (r'name:_(?P<label>\w+)\.jpg$', '{}_cat.jpg', {'cat', 'dog'}),
    (r'name:^\d+-(cat|dog)', '{}-cat.png', {'cat', 'dog'})])
def test_classes_in_names(rule, name, labels, tmp_path):
    root = put(put(tmp_path/'photos', '.', name=name), '.', name=name.replace('cat', 'dog'))
    (root/'cover.jpg').write_bytes(b'')
    found = read_folder(root, rule)
    assert set(found.items.label) == labels and len(found.items) == 12
    assert found.said == ['left out: 1 picture beside the folders (cover.jpg)']


def test_the_message_of_a_flat_folder_finds_rules_and_tables(tmp_path):
    root = put(put(tmp_path/'photos', '.', name='cat_{}.jpg'), '.', name='dog_{}.jpg')
    (root/'labels.csv').write_text('file,label\n')
    with pytest.raises(StudyError) as e: read_folder(root)
    assert 'would find 2 (cat, dog)' in str(e.value) and f"dataset='csv:{root}/labels.csv'" in str(e.value)
    rule = str(e.value).partition("layout=r'")[2].partition("'")[0]
    assert set(read_folder(root, rule).items.label) == {'cat', 'dog'}


def test_the_order_of_plain_folders_is_that_of_before(tmp_path):
    "The split is drawn by the order of rows: class folders, sorted, and the files in them, sorted."
    root = put(tmp_path/'photos', 'b a a~c', n=12)
    found = read_folder(root).items
    assert found.path.tolist() == sorted(found.path, key=lambda p: p.split('/'))
    assert split_items(found).split.value_counts().to_dict() == dict(train=23, test=7, valid=6)


# Links, with torchvision's ImageFolder as the oracle.

def linked(kind, tmp_path):
    store, root = images(tmp_path/'store', 'a b', 10), tmp_path/kind
    for k in 'ab':
        if kind == 'files':
            (root/k).mkdir(parents=True)
            for f in (store/k).iterdir(): os.symlink(f, root/k/f.name)
        if kind == 'classes': root.mkdir(exist_ok=True); os.symlink(store/k, root/k)
        if kind == 'inner': images(root, k, 4); os.symlink(store/k, root/k/'external-disk')
        if kind == 'inner_only': (root/k).mkdir(parents=True); os.symlink(store/k, root/k/'volume')
        if kind == 'chain': root.mkdir(exist_ok=True); os.symlink(store/k, tmp_path/f'to_{k}'); os.symlink(tmp_path/f'to_{k}', root/k)
    if kind == 'root': os.symlink(store, root)
    if kind == 'splits': images(root, 'train/a train/b', 6); os.symlink(store, root/'valid')
    return root


@pytest.mark.parametrize('kind', ['files', 'classes', 'inner', 'inner_only', 'chain', 'root', 'splits'])
def test_links_are_followed(kind, tmp_path):
    from torchvision.datasets import ImageFolder
    root = linked(kind, tmp_path)
    data = load_data(Run(f'folder:{root}', 'lenet5'))
    assert len(data.items) == len(ImageFolder(root)) and data.skipped == []


def test_circles_are_named_and_not_followed(tmp_path):
    root = images(tmp_path/'photos', 'a b', 5)
    for k in 'ab': os.symlink(root, root/k/'up')
    os.symlink(root/'a', root/'a/self')
    found = read_folder(root)
    assert len(found.items) == 10 and found.said == ['not followed, as they lead back to a folder above: a/self, a/up, b/up']


def test_links_that_lead_nowhere(tmp_path):
    root = images(tmp_path/'photos', 'a b', 150)
    for i in range(2): os.symlink(tmp_path/'moved.png', root/f'a/link{i}.png')
    data = load_data(Run(f'folder:{root}', 'lenet5'))
    assert [s['path'] for s in data.skipped] == ['a/link0.png', 'a/link1.png'] and len(data.items) == 300
    assert 'moved.png' in data.skipped[0]['error'] and str(tmp_path) not in data.skipped[0]['error']
    for i in range(2, 30): os.symlink(tmp_path/'moved.png', root/f'a/link{i}.png')
    with pytest.raises(StudyError, match='30 of 330'): load_data(Run(f'folder:{root}', 'lenet5'))
    os.symlink(tmp_path/'disk', root/'c')
    with pytest.raises(StudyError, match="The link 'c' in .* leads to .*disk, which is not there"): read_folder(root)


@pytest.mark.parametrize('folder', ['.photos', '...', '.a b', 'photos'])
def test_records_of_hidden_folders_are_visible(folder, tmp_path):
    "Their names are those of the classes, and of an older record, of the folder."
    images(tmp_path/folder, 'a b', 5)
    run = create_run(dataset=f'folder:{tmp_path/folder}', model='lenet5')
    assert run_id(run).startswith('a_b-') and run_id(Run(f'folder:{tmp_path/folder}', 'lenet5'))[0] not in '.-'
    assert len(load_data(run).items) == 10


# What was decided is said once, and kept.

def test_what_was_decided_is_said_once_and_kept(tmp_path, capsys):
    root = images(tmp_path/'photos', 'train/a train/b valid/a valid/b', 10)
    run = Run(f'folder:{root}', 'lenet5')
    data = load_data(run)
    load_data(run)
    line = ('photos: 2 classes; train 16, valid 20, test 4: your valid/ is used to validate; '
            'of your training images, 4 to test were set apart.')
    assert capsys.readouterr().out == line + '\n' and data.said == line
    from imgstudy.training.train import describe_data
    assert describe_data(data)['said'] == line
    assert 'said' not in describe_data(load_data(Run('digits', 'lenet5')))


@pytest.mark.parametrize('name', ['trainval', 'train_val', 'TrainVal'])
def test_trainval_trains_and_validation_images_are_drawn_from_it(name, tmp_path):
    root = images(tmp_path/'photos', f'{name}/a {name}/b test/a test/b', 10)
    data = load_data(Run(f'folder:{root}', 'lenet5'))
    assert data.said == (f'photos: 2 classes; train 16, valid 4, test 20: your {name}/ is used to train; your test/ to test; '
                         'of your training images, 4 to validate were set apart.')
    assert {*data.of('valid').path.str.split('/').str[0]} == {name} and {*data.of('test').path.str.split('/').str[0]} == {'test'}
    assert load_data(Run(f'folder:{root}', 'lenet5', valid=0)).counts().sum().to_dict() == dict(train=20, valid=0, test=20)
    (tmp_path/'t.csv').write_text('image,label,split\n' + ''.join(f'{p.relative_to(tmp_path)},{p.parent.name},{p.parent.parent.name}\n' for p in sorted(root.rglob('*.png'))))
    table = load_data(Run(f'csv:{tmp_path}/t.csv', 'lenet5'))
    assert table.counts().sum().to_dict() == dict(train=16, valid=4, test=20) and '4 to validate were set apart' in table.said


# Groups.

own = 'each is a group of its own'


@pytest.mark.parametrize('params, files, says', [
    (dict(groups=r'name:^(p\d+)_'), 'a/p{}_1.png a/{}.png b/p{}_2.png', f'2 images without a group (a/0.png, a/1.png): {own}; 4 groups'),
    (dict(groups=r'name:^(p\d+)?_?.'), 'a/p{}_1.png b/x{}.png', f'2 images without a group (b/x0.png, b/x1.png): {own}'),
    (dict(layout=r'name:^(?P<label>[a-z]+)(_(?P<group>p\d))?'), 'cat_p{}.png dog{}.png dog_p{}.png', f'2 images without a group (dog0.png, dog1.png): {own}'),
    (dict(groups=r'name:^(p\d+)_'), 'a/p{}_1.png b/p{}_2.png', ''), (dict(), 'a/p{}_1.png b/{}.png', '')])
def test_images_without_a_group_are_counted_and_named(params, files, says, tmp_path):
    root = tmp_path/'photos'
    for place in files.split():
        for i in range(2): put(root, place.rpartition('/')[0] or '.', 1, place.rpartition('/')[2].format(i))
    said = '; '.join(read_images(f'folder:{root}', **params).said)
    assert says.partition('; ')[0] in said and ('without a group' in said) == bool(says)

@pytest.mark.parametrize('params', [{}, dict(valid=0), dict(folds=3, fold=0), dict(folds=3, fold=2), dict(split_seed=5), dict(subset=.5)])
def test_groups_stay_on_one_side(params, tmp_path):
    root = images(tmp_path/'photos', ' '.join(f'{c}/{c}{i}' for c in ('ill', 'well') for i in range(6)), 3)
    data = load_data(Run(f'folder:{root}', 'lenet5', layout='class/group', **params))
    assert data.items.groupby('group').split.nunique().max() == 1
    assert (data.counts()[['train', 'test']] > 0).all(None) and '12 groups' in data.said


def test_folds_of_groups_test_each_image_once(tmp_path):
    root = images(tmp_path/'photos', 'a b', 12)
    runs = [Run(f'folder:{root}', 'lenet5', groups=r'name:^(\d)', folds=4, fold=k) for k in range(4)]
    tested = [load_data(r).of('test') for r in runs]
    assert sorted(p for t in tested for p in t.path) == sorted(find_images(f'folder:{root}')[1].path)
    groups = [set(t.group) for t in tested]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 10


def test_few_groups(tmp_path):
    root = images(tmp_path/'photos', 'ill/p1 ill/p2 well/p3 well/p4', 5)
    run = lambda **kw: Run(f'folder:{root}', 'lenet5', layout='class/group', **kw)
    with pytest.raises(StudyError, match="^All images of the class 'well' that could be trained on are in one group .p[34]., so that none would be left for validation"): load_data(run())
    assert load_data(run(valid=0)).counts().sum().to_dict() == dict(train=10, valid=0, test=10)
    with pytest.raises(StudyError, match='5 folds need 5 groups, but there are only 4'): load_data(run(folds=5, fold=0))


# folders of 5 images, what is asked for, and what is said: whose images, in which groups, what they lack for, what else helps
one_group = {'a/p1 a/p2 b/p3 b/p4': ({}, "of the class 'b' ", r'one group \(p[34]\)', 'for validation', r'\(papermill, Python\) set valid=0'),
             'a/p1 b/p1': ({}, '', r'one group \(p1\)', 'to test on', 'choose the test images yourself, by a folder test/ or a column split'),
             'train/a/p1 train/b/p2 test/a/p3 test/b/p4': ({}, "of the class 'b' ", r'one group \(p2\)', 'for validation', r'\(papermill, Python\) set valid=0'),
             'train/a/p1 train/b/p1 test/a/p3 test/b/p4': ({}, '', r'one group \(p1\)', 'for validation', r'\(papermill, Python\) set valid=0'),
             'a/p1 a/p2 b/p3': (dict(folds=3, fold=0), "of the class 'b' ", r'one group \(p3\)', 'to train on in one of the folds', 'do without folds')}


@pytest.mark.parametrize('folders', one_group, ids=str)
def test_too_few_groups_are_said_with_what_helps(folders, tmp_path):
    params, whose, groups, what, other = one_group[folders]
    run = Run(f"folder:{images(tmp_path/'photos', folders, 5)}", 'lenet5', layout='split/class/group' if 'train' in folders else 'class/group', **params)
    said = f'All images {whose}that could be trained on are in {groups}, so that none would be left {what}, as groups are not divided. Add images of other groups, or {other}.'
    with pytest.raises(StudyError, match=f'^{said}$'): load_data(run)


def test_a_class_of_one_group_is_named(tmp_path):
    root = images(tmp_path/'photos', 'ok/c1 ok/c2 ok/c3 ok/c4 bad/c1', 5)
    data = load_data(Run(f'folder:{root}', 'lenet5', layout='class/group'))
    assert 'no images of bad in test, as groups are not divided' in data.said
    assert data.counts().loc['bad'].to_dict() == dict(train=5, valid=0, test=0)


def test_groups_that_the_splits_divide_are_named(tmp_path):
    root = images(tmp_path/'photos', 'train/a/p1 train/b/p2 test/a/p1 test/b/p3', 5)
    said = load_data(Run(f'folder:{root}', 'lenet5', layout='split/class/group', valid=0)).said
    assert 'as your splits are, images of 1 group (p1) both test and train' in said


@pytest.mark.parametrize('params, words', [
    (dict(dataset='digits', layout='class'), '`layout` is for data sets called folder:PATH'),
    (dict(dataset='folder:x', label_col='y'), '`label_col` is for data sets called csv:PATH'),
    (dict(dataset='csv:x.csv', layout='class'), '`layout` is for data sets called folder:PATH'),
    (dict(dataset='folder:x', layout='klass'), "'klass' is no layout"),
    (dict(dataset='folder:x', groups='name:patient'), 'has no group'),
    (dict(dataset='folder:x', layout='name:('), 'is no regular expression')])
def test_wrong_ways_to_say_it(params, words):
    with pytest.raises(StudyError) as e: create_run(model='lenet5', **params)
    assert words in str(e.value)


def test_groups_of_a_folder_need_a_rule(tmp_path):
    put(tmp_path/'photos', 'a b')
    with pytest.raises(StudyError, match="a rule for names of files, as in name:"): read_images(f'folder:{tmp_path}/photos', groups='patient')
