use super::*;
use crate::top::fixture;

fn model(vms: usize) -> Model {
    Model::new(fixture::report(vms))
}

fn names(model: &Model) -> Vec<&str> {
    model.rows().map(|row| row.name.as_str()).collect()
}

#[test]
fn a_key_sorts_by_its_column_and_again_turns_the_order_round() {
    let mut model = model(3);
    for (action, expected) in [
        (Action::SortBy(Column::Name), ["vm-0", "vm-1", "vm-2"]),
        (Action::SortBy(Column::Name), ["vm-2", "vm-1", "vm-0"]),
        (Action::SortRight, ["vm-0", "vm-1", "vm-2"]),
        (Action::Reverse, ["vm-0", "vm-1", "vm-2"]),
        (Action::SortLeft, ["vm-0", "vm-1", "vm-2"]),
        (Action::SortBy(Column::InRam), ["vm-2", "vm-1", "vm-0"]),
    ] {
        assert_eq!(model.act(action), Effect::Nothing);
        assert_eq!(names(&model), expected, "{action:?}");
    }
}

#[test]
fn equal_vms_are_in_the_order_of_their_names() {
    let mut report = fixture::report(3);
    report.vms.reverse();
    let mut model = Model::new(report);
    model.act(Action::SortBy(Column::Cooperation));
    let first: Vec<&str> = names(&model);
    assert_eq!(first, ["vm-2", "vm-0", "vm-1"]);
}

#[test]
fn the_choice_follows_its_vm_and_stays_in_the_table() {
    let mut model = model(30);
    model.drawn(10);
    model.act(Action::SortBy(Column::Name));
    for (step, expected) in [
        (Step::Up, "vm-0"),
        (Step::Down, "vm-1"),
        (Step::PageDown, "vm-19"),
        (Step::Last, "vm-9"),
        (Step::Down, "vm-9"),
        (Step::PageUp, "vm-26"),
    ] {
        model.act(Action::Choose(step));
        assert_eq!(model.chosen(), Some(expected), "{step:?}");
    }
    model.act(Action::Reverse);
    assert_eq!((model.chosen(), model.row()), (Some("vm-26"), 10));
    let mut report = fixture::report(30);
    report.vms.retain(|row| row.name != "vm-26");
    model.answered(report, Duration::from_secs(8));
    assert_eq!((model.chosen(), model.row()), (Some("vm-25"), 10));
    model.answered(fixture::report(0), Duration::from_secs(8));
    assert_eq!((model.chosen(), model.row(), model.chosen_row()), (None, 0, None));
    model.act(Action::Choose(Step::Last));
    model.act(Action::Open);
    assert_eq!(model.page(), Page::Fleet);
}

#[test]
fn without_a_choice_the_first_row_stays_chosen() {
    let mut model = model(3);
    assert_eq!(model.chosen(), Some("vm-2"));
    model.act(Action::Choose(Step::Last));
    model.act(Action::Choose(Step::First));
    model.act(Action::Reverse);
    assert_eq!(model.chosen(), Some("vm-0"));
}

#[test]
fn escape_leaves_what_is_open_and_then_the_program() {
    let mut model = model(2);
    model.act(Action::Open);
    model.act(Action::Help);
    assert_eq!(model.act(Action::Back), Effect::Nothing);
    assert!(model.page() == Page::Vm && !model.shows_help());
    assert_eq!(model.act(Action::Back), Effect::Nothing);
    assert_eq!(model.page(), Page::Fleet);
    assert_eq!(model.act(Action::Back), Effect::Quit);
}

#[test]
fn the_page_of_a_vm_that_has_ended_keeps_its_history() {
    let mut model = model(2);
    model.act(Action::Open);
    let mut report = fixture::later(fixture::report(2), 1);
    report.vms.retain(|row| row.name == "vm-0");
    model.answered(report, Duration::from_secs(8));
    assert_eq!((model.chosen(), model.chosen_row()), (Some("vm-1"), None));
    assert!(model.history().is_some());
}

#[test]
fn a_daemon_that_went_away_keeps_the_picture_and_the_moment() {
    let mut model = model(2);
    model.failed("a".into());
    model.failed("b".into());
    assert_eq!(*model.link(), Link::Lost { since: Duration::ZERO, why: "b".into() });
    assert_eq!(model.rows().len(), 2);
    model.answered(fixture::later(fixture::report(3), 9), Duration::from_secs(8));
    assert_eq!((model.link(), model.rows().len()), (&Link::Up, 3));
}

#[test]
fn decisions_count_once_and_the_oldest_go() {
    let mut model = model(2);
    let before = model.decisions().count();
    model.answered(fixture::report(2), Duration::from_secs(8));
    assert_eq!(model.decisions().count(), before);
    for second in 1..3000 {
        model.answered(fixture::later(fixture::report(2), second), Duration::from_secs(8));
    }
    assert_eq!(model.decisions().count(), DECISIONS_MAX);
}

#[test]
fn a_held_picture_stays_while_history_goes_on() {
    let mut model = model(2);
    model.act(Action::Hold);
    model.answered(fixture::later(fixture::report(5), 1), Duration::from_secs(8));
    assert_eq!(model.rows().len(), 2);
    let columns = model.history().unwrap().columns(2, Duration::from_secs(1), Duration::ZERO);
    assert!(columns.iter().all(Option::is_some));
    let decisions = model.decisions().count();
    model.answered(fixture::later(fixture::report(5), 1), Duration::from_secs(8));
    assert_eq!(model.decisions().count(), decisions);
}
