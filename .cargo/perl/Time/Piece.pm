package Time::Piece;
use strict;
use warnings;
use POSIX ();
use Exporter 'import';

our @EXPORT = qw(localtime);

sub localtime { return bless [CORE::localtime($_[0] // time)] }

# Reads dates such as 9 Jun 2026, which is all that is asked of it.
sub strptime {
    my ($class, $date, $format) = @_;
    my %month;
    @month{qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec)} = (0 .. 11);
    my ($day, $name, $year) = $date =~ /\A\s*(\d+)\s+(\w{3})\s+(\d{4})\s*\z/ or die "not a date: $date";
    die "unknown format: $format" unless $format eq '%d %b %Y' && exists $month{$name};
    return bless [0, 0, 0, $day, $month{$name}, $year - 1900], $class;
}

sub strftime { my ($self, $format) = @_; return POSIX::strftime($format, @$self) }

1;
