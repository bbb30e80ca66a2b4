"Labels in a table: columns and files found, what has no partner named, several labels per image answered."
import numpy as np, pandas as pd, pytest
from PIL import Image
from imgstudy.core import StudyError
from imgstudy.data.datasets import get_dataset, read_images
from imgstudy.data.split import load_data
from imgstudy.data.tables import open_table, read_table, table_dataset
from imgstudy.records.record import read_record
from imgstudy.runs import Run
from imgstudy.study.create import create_run
from imgstudy.training.train import train


def images(root, names):
    "Small images, brighter where the number in the name is odd."
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        (root/name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rng.integers(0, 100, (12, 12, 3)) + 100*(i % 2)).astype(np.uint8)).save(root/name)
    return root


def table(root, text, name='labels.csv', encoding='utf-8'):
    (root/name).write_bytes(text.encode(encoding))
    return root/name


@pytest.fixture
def birds(tmp_path): return images(tmp_path/'birds', [f'img/{i}.png' for i in range(40)])


species = lambda i: 'owl' if i % 2 else 'jay'
body = lambda row, n=40: ''.join(row(i) + '\n' for i in range(n))


@pytest.mark.parametrize('text', [
    'file,species\n' + body(lambda i: f'img/{i}.png,{species(i)}'),
    'id;label\n' + body(lambda i: f'{i};{species(i)}'),
    'label\tname\n' + body(lambda i: f'{species(i)}\t{i}.png'),
    'Unnamed: 0,what,file\n' + body(lambda i: f'{i},{species(i)},/home/somebody/birds/img/{i}.png'),
    '\ufefffile,class,width\n' + body(lambda i: f'img\\{i}.png,{species(i)},{i + 300}'),
    body(lambda i: f'{i}.png,{species(i)}'),
    'file,owl,jay\n' + body(lambda i: f'{i}.png,{i % 2},{1 - i % 2}'),
    '"file","label"\r\n' + body(lambda i: f'"./img/{i}.png"," {species(i)} "\r'),
], ids=['path', 'stem', 'name', 'moved', 'windows', 'no_header', 'one_hot', 'quoted'])
def test_columns_and_files_are_found(text, birds):
    found = read_table(table(birds, text))
    assert found.items.path.tolist() == sorted(f'img/{i}.png' for i in range(40))
    assert all(r.label == species(int(r.path[4:-4])) for r in found.items.itertuples())
    assert len(found.said) == 1 and found.said[0].startswith('labels.csv says image in')


def test_columns_that_are_named(birds):
    path = table(birds, 'id,a,b,part,who\n' + body(lambda i: f'{i},{species(i)},{i % 4},{["train", "val", "test"][i % 3]},p{i//4}'))
    with pytest.raises(StudyError, match='Name it with `label_col`: a, b, part, who'): read_table(path)
    found = read_table(path, label_col='b', split_col='part', groups='who')
    assert sorted(set(found.items.label)) == ['0', '1', '2', '3'] and found.items.split.value_counts().to_dict() == dict(train=14, valid=13, test=13)
    with pytest.raises(StudyError, match="`image_col`: There is no column 'ID'.* Did you mean 'id'"): read_table(path, image_col='ID', label_col='a')
    with pytest.raises(StudyError, match="The column 'who' .* holds p0, p1, p2 and 7 more: a split is called"): read_table(path, label_col='a', split_col='who')


def test_a_column_of_splits_is_found_by_its_values(birds):
    rows = lambda values: 'id,label,split\n' + body(lambda i: f'{i},{species(i)},{values[i//2 % len(values)]}')
    assert set(read_table(table(birds, rows(['Training', 'Test']))).items.split) == {'train', 'test'}
    assert set(read_table(table(birds, rows(['A', 'B']))).items.split) == {''}
    with_gap = read_table(table(birds, rows(['train', 'test', ''])))
    assert '12 rows without a split' in '; '.join(with_gap.said) and len(with_gap.items) == 28


def test_what_has_no_partner_is_counted_and_named(birds):
    images(birds, ['img/new.png'])
    text = 'file,label\n' + body(lambda i: f'{i},{species(i) if i > 2 else ""}') + 'lost,owl\n'
    found = read_table(table(birds, text))
    assert len(found.items) == 37
    assert found.said[1:] == ['1 row without a file (lost)', '3 rows without a label (0, 1, 2)', '1 picture without a row (img/new.png)']


@pytest.mark.parametrize('text, words', [
    ('file,label\n' + body(lambda i: f'{i},owl|jay' if i else '0,owl'), 'multi-label'),
    ('file,label\n' + body(lambda i: f'{i},"owl;jay"' if i % 2 else f'{i},"jay;tit"'), 'multi-label'),
    ('file,label\n' + body(lambda i: f'{i},"owl, jay"' if i % 2 else f'{i},owl'), 'multi-label'),
    ('file,label\n' + body(lambda i: f'{i},{species(i)}') + '3,jay\n', "several rows for img/3.png, with jay, owl. This library trains one class"),
    ('file,owl,jay\n' + body(lambda i: f'{i},1,{i % 2}'), '20 rows with several of them: that is multi-label'),
    ('file,label\n' + body(lambda i: f'{i},{i/7 + .01:.3f}'), 'are measurements'),
    ('file,label\n' + body(lambda i: f'{i},owl'), "only one class in .*labels.csv, 'owl'"),
    ('file,label\n' + body(lambda i: f'x{i},owl'), 'No column of .* names images'),
    ('file,label\n' + body(lambda i: f'{i if i < 9 else -i},{species(i)}'), '31 rows of 40 .* name files that are not there'),
    ('file,label\n', 'has no rows'),
    ('file,label,split\n' + body(lambda i: f'{i},{species(i)},{"val" if i % 2 else "test"}'), "The column 'split' of .*labels.csv has a value 'test' but no value train: call the training"),
    ('file,label,split\n' + body(lambda i: f'{i},{species(i)},{("train", "test", "Training")[i % 3]}'), "holds two values for one split, 'Training' and 'train'"),
    ('file,label,split\n' + body(lambda i: f'{i},{species(i)},{"train" if i % 2 else "test"}'), "The class 'jay' is in the test rows but not in the train rows"),
], ids=['bar', 'semicolon', 'comma', 'rows', 'columns', 'numbers', 'one_class', 'no_files', 'few_files', 'empty', 'no_train', 'two_trains', 'untrained'])
def test_answered_clearly(text, words, birds):
    with pytest.raises(StudyError, match=words): read_table(table(birds, text))


other_notations = {'labels.json': '{"images": [{"file": "owl1.jpg"}]}', 'labels.csv': '[\n  {"image": "a.jpg",\n   "label": "owl"}]', 'labels.txt': '{"image": "a.jpg"}\n{"image": "b.jpg"}\n',
                   'labels.xml': '<annotation>\n<file>a.jpg</file></annotation>', 'notes.csv': '\ufeff<?xml version="1.0"?>\n<a/>', 'page.html': '<!DOCTYPE html>\n<html></html>', 'labels.yaml': 'names:\n  - owl\n'}


@pytest.mark.parametrize('name', other_notations)
def test_another_notation_is_named(name, tmp_path):
    (tmp_path/name).write_text(other_notations[name], encoding='utf-8')
    kind = 'JSON' if '{' in other_notations[name] else 'YAML' if 'yaml' in name else 'XML or HTML'
    with pytest.raises(StudyError, match=rf'{name} is no table: it is written in {kind}. Write what it says as a CSV file'): read_images(f'csv:{tmp_path/name}')


@pytest.mark.parametrize('text', ['[image],[label]\na.jpg,owl', '{image},label\na.jpg,owl', '<image>,<label>\na.jpg,owl', '[1],2\na.jpg,owl'])
def test_a_strange_header_is_a_table(text, tmp_path):
    (tmp_path/'t.csv').write_text(text)
    assert open_table(tmp_path/'t.csv').to_numpy().tolist() == [['a.jpg', 'owl']]


def test_a_name_in_two_folders(tmp_path):
    root = images(tmp_path/'x', [f'{d}/{i}.png' for d in ('train', 'test') for i in range(4)])
    with pytest.raises(StudyError, match='may be test/0.png, train/0.png: write the folder'): read_table(table(root, 'id,label\n' + body(lambda i: f'{i},{species(i)}', 4)))
    found = read_table(table(root, 'id,label\n' + body(lambda i: f'train/{i},{species(i)}', 4)))
    assert found.items.path.tolist() == [f'train/{i}.png' for i in range(4)] and '4 pictures without a row' in found.said[-1]


def test_images_beside_the_table_s_folder(birds, tmp_path):
    (tmp_path/'notes').mkdir()
    found = read_table(table(tmp_path/'notes', 'file,label\n' + body(lambda i: f'../birds/img/{i}.png,{species(i)}')))
    assert found.root == birds/'img' and len(found.items) == 40


def test_spellings_and_encodings(birds):
    text = 'file,label\n' + body(lambda i: f'{i},{["grün", "Grün ", "rot"][i % 3]}')
    found = read_table(table(birds, text, encoding='cp1252'))
    assert sorted(set(found.items.label)) == ['Grün', 'rot'] and 'are one class' in '; '.join(found.said)


def test_values_stay_text(birds):
    found = read_table(table(birds, 'file,label\n' + body(lambda i: f'{i},{["NA", "007", "null"][i % 3]}')))
    assert sorted(set(found.items.label)) == ['007', 'NA', 'null']


def test_from_a_table_to_a_record(birds, runs_dir, capsys):
    path = table(birds, 'id,species,bird\n' + body(lambda i: f'{i},{species(i)},b{i//4}'))
    run = create_run(dataset=f'csv:{path}', model='lenet5', epochs=2, label_col='species', groups='bird', size=16)
    record = read_record(train(run).path)
    assert record.outcome == 'finished' and record.run == run and record.info['data']['classes'] == ['jay', 'owl']
    assert record.id.startswith('jay_owl-lenet5-s0-') and get_dataset(run.dataset).title == 'birds'
    said = record.info['data']['said']
    assert "labels.csv says image in 'id', class in 'species', group in 'bird'; of all images, 8 to test" in said and said in capsys.readouterr().out
    table(birds, 'id,species,bird\n' + body(lambda i: f'{i},{species(i + 1)},b{i//4}'))
    with pytest.raises(StudyError, match='no longer holds the images of'): train(run)


def test_groups_by_column_and_by_rule(birds):
    path = table(birds, 'id,label,who\n' + body(lambda i: f'{i},{species(i)},{f"p{i//4}" if i else ""}'))
    assert set(read_images(f'csv:{path}', groups='who').items.group) == {*(f'p{i}' for i in range(10)), 'img/0.png'}
    assert set(read_images(f'csv:{path}', label_col='label', groups=r'name:(\d)\.').items.group) == set('0123456789')
    data = load_data(Run(f'csv:{path}', 'lenet5', label_col='label', groups='who'))
    assert data.items.groupby('group').split.nunique().max() == 1 and '11 groups' in data.said


@pytest.mark.parametrize('who, says', [
    (lambda i: '' if i in (3, 20, 21, 35) else f'p{i//4}', '4 images without a group (img/20.png, img/21.png, img/3.png and 1 more): each is a group of its own'),
    (lambda i: '' if not i else f'p{i//4}', '1 image without a group (img/0.png): a group of its own'),
    (lambda i: '  ' if i < 2 else 'x', '2 images without a group (img/0.png, img/1.png): each is a group of its own'),
    (lambda i: '', '40 images without a group (img/0.png, img/1.png, img/10.png and 37 more): each is a group of its own'),
    (lambda i: f'p{i//4}', '')])
def test_images_without_a_group_are_counted_and_named(who, says, birds):
    path = table(birds, 'id,label,who\n' + body(lambda i: f'{i},{species(i)},{who(i)}'))
    said = '; '.join(read_images(f'csv:{path}', groups='who').said)
    assert says in said and ('without a group' in said) == bool(says)
    if 'p' in who(9): assert says in load_data(Run(f'csv:{path}', 'lenet5', groups='who')).said, 'in the one line'
    assert 'without a group' not in '; '.join(read_images(f'csv:{path}', label_col='label').said)


def test_a_data_frame(birds, tmp_path, monkeypatch):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.chdir(birds)
    frame = pd.DataFrame(dict(file=[f'img/{i}.png' for i in range(40)], label=[species(i) for i in range(40)]))
    run = create_run(dataset=frame, model='lenet5')
    assert create_run(dataset=frame.copy(), model='lenet5') == run != create_run(dataset=frame[:30], model='lenet5')
    assert len(load_data(run).items) == 40 and len(list((tmp_path/'cache/tables').iterdir())) == 2
    assert create_run(dataset=table_dataset(frame.assign(file=[birds/f for f in frame.file]), tmp_path), model='lenet5') == run


@pytest.mark.parametrize('name, words', [
    ('csv:', 'After csv: comes the path of a table'), ('csv:/no/such.csv', 'There is no table /no/such.csv'),
    ('csv:{birds}', 'is a folder: write folder:'), ('folder:{birds}/labels.csv', 'is a table: write csv:'),
    ('{birds}/labels.csv', 'write csv:')])
def test_names_that_are_nearly_right(name, words, birds):
    table(birds, 'file,label\n')
    with pytest.raises(StudyError, match=words): read_images(name.format(birds=birds))
