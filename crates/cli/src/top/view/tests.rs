use napa_api::host::Level;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use ratatui::{Frame, Terminal};

use super::*;
use crate::top::column::Column;
use crate::top::fixture;
use crate::top::keys::{Action, Step};

fn model(vms: usize) -> Model {
    Model::new(fixture::report(vms))
}

/// A terminal of this size with the picture on it.
fn drawn(model: &Model, palette: Palette, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = Duration::from_secs(20);
    let picture = |frame: &mut Frame| {
        draw(model, now, palette, frame.area(), frame.buffer_mut());
    };
    terminal.draw(picture).unwrap();
    terminal.backend().buffer().clone()
}

#[track_caller]
fn check(model: &Model, width: u16, height: u16, expected: &str) {
    let found = format!("\n{}", text(&drawn(model, Palette { has_colours: false }, width, height)));
    assert!(found == expected, "found:{found}END");
}

#[test]
fn a_classic_terminal_shows_everything() {
    check(
        &model(3),
        80,
        24,
        "
napa host   level soft   policy napa   3 VMs   VMs may start
budget  [############....] VMs hold 3.0G of 4.0G, 1.0G left
RAM     [###==...........] VMs 3.0G, others 2.0G, available 11.0G (9.0G free)
swap    [ssss............] 2.0G of 8.0G, promised 3.0G, compressed 500M in RAM
PSI     some 1.2 %, full 0.1 %  sharing saves 300M  limits 1.5G = 0.4 x budget
why     VMs hold 76 % of the budget
VMs by IN RAM, largest first
VM       LIMIT IN RAM SHARED BALLOON  SWAP WORKING ENTITLED AVAIL PSI % GIVES
vm-2      512M   102M    40M     96M   36M     90M     162M   30M   2.1 stuck
vm-1      512M   101M    40M     96M   36M     90M     161M   30M   2.1   yes
vm-0      512M   100M    40M     96M   36M       -     160M     -     -   yes
decisions, the newest first
   0 s  host  share    take     256 MiB  merging costs less than it saves
   0 s  vm-1  reclaim  give      16 MiB  its pages come back from swap
   0 s  vm-0  balloon  take      64 MiB  the level is soft, and it uses less








Up/Down choose  Left/Right sort by  r reverse  Enter one VM  ? help  q quit
",
    );
}

#[test]
fn many_vms_scroll() {
    let mut model = model(1000);
    model.act(Action::SortBy(Column::Name));
    model.drawn(10);
    model.act(Action::Choose(Step::PageDown));
    check(
        &model,
        80,
        24,
        "
napa host   level soft   policy napa   1,000 VMs   VMs may start
budget  [############....] VMs hold 3.0G of 4.0G, 1.0G left
RAM     [###==...........] VMs 3.0G, others 2.0G, available 11.0G (9.0G free)
swap    [ssss............] 2.0G of 8.0G, promised 3.0G, compressed 500M in RAM
PSI     some 1.2 %, full 0.1 %  sharing saves 300M  limits 500G = 125.0 x budget
why     VMs hold 76 % of the budget
VMs 6 to 15 of 1,000 by name, in order
VM       LIMIT IN RAM SHARED BALLOON  SWAP WORKING ENTITLED AVAIL PSI % GIVES
vm-102    512M   202M    40M     96M   36M     90M     262M   30M   2.1 stuck
vm-103    512M   203M    40M     96M   36M     90M     263M   30M   2.1   yes
vm-104    512M   204M    40M     96M   36M     90M     264M   30M   2.1    no
vm-105    512M   205M    40M     96M   36M     90M     265M   30M   2.1   yes
vm-106    512M   206M    40M     96M   36M     90M     266M   30M   2.1   yes
vm-107    512M   207M    40M     96M   36M     90M     267M   30M   2.1 stuck
vm-108    512M   208M    40M     96M   36M     90M     268M   30M   2.1   yes
vm-109    512M   209M    40M     96M   36M     90M     269M   30M   2.1    no
vm-11     512M   111M    40M     96M   36M     90M     171M   30M   2.1   yes
vm-110    512M   210M    40M     96M   36M     90M     270M   30M   2.1   yes
decisions, the newest first
   0 s  host  share    take     256 MiB  merging costs less than it saves
   0 s  vm-1  reclaim  give      16 MiB  its pages come back from swap
   0 s  vm-0  balloon  take      64 MiB  the level is soft, and it uses less

Up/Down choose  Left/Right sort by  r reverse  Enter one VM  ? help  q quit
",
    );
}

#[test]
fn a_small_terminal_shows_what_matters_most() {
    check(
        &model(9),
        40,
        10,
        "
napa host   level soft   policy napa   9
budget  [########..] VMs hold 3.0G of 4.
RAM     [##=.......] VMs 3.0G, others 2.
VMs 1 to 4 of 9 by IN RAM, largest first
VM       LIMIT IN RAM  SWAP ENTITLED
vm-8      512M   108M   36M     168M
vm-7      512M   107M   36M     167M
vm-6      512M   106M   36M     166M
vm-5      512M   105M   36M     165M
Enter one VM  ? help  q quit
",
    );
}

#[test]
fn a_wide_terminal_has_room_for_long_names() {
    let mut report = fixture::report(2);
    report.vms[1].name = "database-of-the-accounting-department".into();
    report.level = Level::Low;
    report.admission_open = false;
    report.troubles = vec!["KSM: /sys/kernel/mm/ksm/run cannot be read".into()];
    check(
        &Model::new(report),
        120,
        20,
        "
napa host   level low   policy napa   2 VMs   no VM may start
trouble KSM: /sys/kernel/mm/ksm/run cannot be read
budget  [##################......] VMs hold 3.0G of 4.0G, 1.0G left
RAM     [#####===................] VMs 3.0G, others 2.0G, available 11.0G (9.0G free)
swap    [ssssss..................] 2.0G of 8.0G, promised 3.0G, compressed 500M in RAM
PSI     some 1.2 %, full 0.1 %  sharing saves 300M  limits 1.0G = 0.2 x budget
VMs by IN RAM, largest first
VM                                    LIMIT IN RAM SHARED BALLOON  SWAP WORKING ENTITLED AVAIL PSI % GIVES
database-of-the-accounting-department  512M   101M    40M     96M   36M     90M     161M   30M   2.1   yes
vm-0                                   512M   100M    40M     96M   36M       -     160M     -     -   yes
decisions, the newest first
   0 s  host  share    take     256 MiB  merging costs less than it saves
   0 s  vm-1  reclaim  give      16 MiB  its pages come back from swap
   0 s  vm-0  balloon  take      64 MiB  the level is soft, and it uses less





Up/Down choose  Left/Right sort by  r reverse  Enter one VM  ? help  q quit
",
    );
}

#[test]
fn one_vm_is_shown_over_time() {
    let mut model = model(2);
    for second in 1..40 {
        let mut report = fixture::later(fixture::report(2), second);
        report.vms[1].resident.0 += second * (3 << 20);
        report.decisions.truncate(usize::from(second == 20) * 2);
        model.answered(report, Duration::from_secs(8));
    }
    model.act(Action::Open);
    check(
        &model,
        80,
        24,
        "
napa host   level soft   policy napa   2 VMs   VMs may start
vm-1   limit 512 MiB   reserved 64 MiB   shares 1000   gives memory back: yes
entitled to 161 MiB: its shares would allow more than it uses
in RAM 218M, shared 40M, swap 36M, balloon 96M/128M, discarded 100M, zero 236M
process 121M, working set 90M, guest says 30M free, PSI 2.1 %, 1.5 refaults/s
 512M |
      |
      |
      |                                                           oooooooooooooo
      |                                           oooooooooooooooooooooooooooooo
 256M |                                 ooooooooooooooooooooooooooossssssssssss=
      |                                 ooooooooooossssssssssss==============###
      |                                 ----------------------------------------
      |                                 ======##################################
      |                                 ########################################
    0 |                                 ########################################
       73 s ago                                                              now
       # in RAM   = shared   s swap   o balloon   - entitlement   1 s a column
decisions, the newest first
  19 s  vm-1  reclaim  give      16 MiB  its pages come back from swap
  39 s  vm-1  reclaim  give      16 MiB  its pages come back from swap


Esc back  Up/Down other VM  +/- time  ? help  q quit
",
    );
}

#[test]
fn a_vm_that_has_ended_and_a_daemon_that_went_away_are_told() {
    let mut model = model(2);
    model.act(Action::Open);
    model.answered(fixture::later(fixture::report(1), 1), Duration::from_secs(8));
    model.failed("nobody listens".into());
    check(
        &model,
        60,
        16,
        "
napa host   level soft   policy napa   1 VM   VMs may start
the last picture, no answer for 12 s: nobody listens
vm-1   does not run any more; Esc goes back
 273M |                                                    o
      |                                                    o
 136M |                                                    -
      |                                                    #
    0 |                                                    #
       53 s ago                                          now
       # in RAM   = shared   s swap   o balloon   - entitlem
decisions, the newest first
   0 s  vm-1  reclaim  give      16 MiB  its pages come back
        from swap
   1 s  vm-1  reclaim  give      16 MiB  its pages come back
        from swap
Esc back  Up/Down other VM  +/- time  ? help  q quit
",
    );
}

#[test]
fn the_help_fits_on_a_classic_terminal() {
    let mut model = model(1);
    model.act(Action::Help);
    check(
        &model,
        80,
        24,
        "
Keys
  Up, Down      choose a VM; also PageUp, PageDown, Home, End, j, k
  Enter         one VM over time; + and - change how much time
  Left, Right   sort by the next column; r turns the order round
  Space         hold the picture, and go on
  Esc           back; from the table, end
  q, Ctrl-C     end
  Ctrl-Z        back to the shell; fg continues
  Ctrl-L        draw everything anew
  ?             this page
Columns, with the key that sorts by them
  n  VM         name
  l  LIMIT      the most that the guest can have
  m  IN RAM     in RAM and its own (resident)
  h  SHARED     in RAM, merged with equal pages
  b  BALLOON    given up to the balloon
  s  SWAP       in the host's swap
  w  WORKING    what the guest uses, by estimate (working set)
  e  ENTITLED   what it may hold in RAM now (entitlement)
  a  AVAIL      free for new programs, in the guest's words
  p  PSI %      time in which a thread of it waits for memory
  g  GIVES      whether it gives memory back when asked

Esc back  q quit
",
    );
}

#[test]
fn colours_are_there_only_when_wanted() {
    let coloured = |model: &Model, has_colours| {
        let buffer = drawn(model, Palette { has_colours }, 80, 24);
        buffer.content().iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    let mut model = model(5);
    model.failed("nobody listens".into());
    for page in [Action::Help, Action::Back, Action::Open] {
        model.act(page);
        assert!(!coloured(&model, false), "{page:?}");
    }
    assert!(coloured(&model, true));
}

#[test]
fn there_is_a_picture_of_any_size() {
    for page in [Action::Help, Action::Back, Action::Open, Action::Back] {
        for vms in [0, 1, 50] {
            let mut model = model(vms);
            model.act(page);
            model.failed("nobody listens".into());
            for (width, height) in [(0, 0), (1, 1), (1, 40), (200, 1), (3, 3), (20, 7), (40, 16), (500, 200)]
            {
                drawn(&model, Palette { has_colours: true }, width, height);
            }
        }
    }
}
