"What an option takes, and each option that works, is in --help: beside the checks that read it."
import pytest
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.quick import check_reading
from imgstudy.runs import parse_layout


def help_of(name): return ' '.join(cli.create_parser(name).format_help().split())


def with_option(option): return [n for n in cli.commands if f'--{option} ' in help_of(n)]


layouts = 'class', 'split/class', 'class/group', '*/class', 'class/images', 'name:REGEX'


@pytest.mark.parametrize('name', with_option('layout'))
def test_every_layout_is_named(name):
    for form in layouts:
        assert f' {form},' in help_of(name) or f' {form} ' in help_of(name), form
        parse_layout(form.replace('REGEX', '^([a-z]+)_'))
    with pytest.raises(StudyError) as e: parse_layout('clas')
    assert all(form in str(e.value) for form in layouts), 'the message and the help name the same'


@pytest.mark.parametrize('name', with_option('groups'))
def test_every_way_to_group_is_named(name):
    assert 'column, name:REGEX or duplicates: images of a group stay' in help_of(name)
    check_reading('folder:x', groups='duplicates')


def test_commands_that_read_own_images():
    assert set(with_option('layout')) == set(with_option('groups')) == {'train', 'best', 'compare', 'audit', 'suspects', 'features'}


@pytest.mark.parametrize('name', [n for n in cli.commands if '--study' in ' '.join(cli.create_parser(n)._option_string_actions)])
def test_study_is_an_option_of_its_own(name):
    assert '--study ' in help_of(name)
    assert cli.parse(name, ['--study', 'mine'])['study'] == cli.parse(name, ['--study=mine'])['study'] == 'mine'
    if name in ('run', 'status'): assert cli.parse(name, ['mine', '--scale', 'full'])['study'] == 'mine'


def test_commands_with_a_study_of_ones_own():
    assert {n for n in cli.commands if '--study ' in help_of(n)} >= {'run', 'status', 'verify', 'coverage', 'report'}
