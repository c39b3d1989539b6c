//! Figures as tables for people.

use super::figure::{Better, Figure, Limit, Subject, Verdict};
use super::subject;
use crate::output::{Style, Table};

const SUBJECTS: [Subject; 4] = [Subject::Napa, Subject::QemuMicrovm, Subject::QemuQ35, Subject::Host];

/// The figures, what napa should reach, and what was left out.
pub fn render(figures: &[Figure], notes: &[String], style: Style) -> String {
    let mut text = figures_table(figures);
    let limits = limits_table(figures, style);
    if !limits.is_empty() {
        text += &format!("\n{limits}");
    }
    for note in notes {
        text += &format!("\nnot measured: {note}\n");
    }
    text
}

/// Medians, in parentheses the range. A column that is empty is left out by the table.
fn figures_table(figures: &[Figure]) -> String {
    let mut table = Table::new();
    let measured = |subject| figures.iter().any(|figure| figure.sample(subject).is_some());
    let heading = |subject| if measured(subject) { subject::name(subject) } else { "" };
    let ratio_heading = |subject, text| if ratio(figures, subject) { text } else { "" };
    let [napa, microvm, q35, host] = SUBJECTS.map(heading);
    let (to_microvm, to_host) =
        (ratio_heading(Subject::QemuMicrovm, "napa/QEMU"), ratio_heading(Subject::Host, "napa/host"));
    table.row(["median (range)", napa, microvm, q35, host, to_microvm, to_host]);
    for figure in figures {
        let [napa, microvm, q35, host] = SUBJECTS.map(|subject| value(figure, subject));
        let [to_microvm, to_host] = [Subject::QemuMicrovm, Subject::Host]
            .map(|subject| figure.ratio(subject).map_or(String::new(), number));
        table.row([&figure.name, &napa, &microvm, &q35, &host, &to_microvm, &to_host]);
    }
    table.finish()
}

fn ratio(figures: &[Figure], subject: Subject) -> bool {
    figures.iter().any(|figure| figure.ratio(subject).is_some())
}

fn value(figure: &Figure, subject: Subject) -> String {
    let Some(sample) = figure.sample(subject) else { return String::new() };
    let show = |value| figure.unit.show(value);
    match sample.min == sample.max {
        true => show(sample.median),
        false => format!("{} ({} to {})", show(sample.median), show(sample.min), show(sample.max)),
    }
}

fn limits_table(figures: &[Figure], style: Style) -> String {
    let mut table = Table::new();
    table.row(["what napa should reach", "napa", "at least", "aim", "verdict"]);
    let mut rows = 0;
    for figure in figures {
        for &limit in &figure.limits {
            let Some(verdict) = figure.verdict(limit) else { continue };
            let [reached, at_least, aim] = limit_cells(figure, limit);
            let name = match limit.ratio_to {
                Some(other) => format!("{}, against {}", figure.name, subject::name(other)),
                None => figure.name.clone(),
            };
            let word = match verdict {
                Verdict::Aim => style.good("aim reached"),
                Verdict::AtLeast => style.doubtful("reached, the aim is not"),
                Verdict::Missed => style.bad("NOT REACHED"),
            };
            table.row([&name, &reached, &at_least, &aim, &word]);
            rows += 1;
        }
    }
    if rows == 0 { String::new() } else { table.finish() }
}

fn limit_cells(figure: &Figure, limit: Limit) -> [String; 3] {
    let sign = match figure.better {
        Better::Lower => "<=",
        Better::Higher => ">=",
    };
    let show = |value: f64| match limit.ratio_to {
        Some(_) => number(value),
        None => figure.unit.show(value),
    };
    let reached = match limit.ratio_to {
        Some(other) => figure.ratio(other),
        None => figure.sample(Subject::Napa).map(|sample| sample.median),
    };
    let reached = reached.map_or(String::new(), show);
    [reached, format!("{sign} {}", show(limit.at_least)), format!("{sign} {}", show(limit.aim))]
}

/// A ratio, with as many places as say something.
fn number(ratio: f64) -> String {
    if ratio < 0.1 { format!("{ratio:.3}") } else { format!("{ratio:.2}") }
}

#[cfg(test)]
mod tests {
    use super::super::figure::Unit;
    use super::*;

    #[test]
    fn figures_ratios_and_limits_are_shown() {
        let mut start = Figure::new("start", "exec to first byte", Unit::Nanoseconds, Better::Lower).limit(
            Some(Subject::QemuMicrovm),
            0.08,
            0.04,
        );
        start.add(Subject::Napa, &[2e6, 3e6, 2.2e6]);
        start.add(Subject::QemuMicrovm, &[40e6]);
        let mut threads = Figure::new("memory", "threads", Unit::Count, Better::Lower).limit(None, 4.0, 3.0);
        threads.add(Subject::Napa, &[5.0]);
        let expected = "\
median (range)      napa                       QEMU microvm  napa/QEMU
exec to first byte  2.2 ms (2.0 ms to 3.0 ms)  40 ms         0.055
threads             5

what napa should reach                    napa   at least  aim       verdict
exec to first byte, against QEMU microvm  0.055  <= 0.080  <= 0.040  reached, the aim is not
threads                                   5      <= 4      <= 3      NOT REACHED

not measured: q35: no time
";
        assert_eq!(render(&[start, threads], &["q35: no time".into()], Style::PLAIN), expected);
    }

    #[test]
    fn limits_that_cannot_be_judged_are_not_shown() {
        let mut alone = Figure::new("start", "exec", Unit::Nanoseconds, Better::Lower).limit(
            Some(Subject::QemuMicrovm),
            0.08,
            0.04,
        );
        alone.add(Subject::Napa, &[2e6]);
        assert_eq!(render(&[alone], &[], Style::PLAIN), "median (range)  napa\nexec            2.0 ms\n");
    }
}
