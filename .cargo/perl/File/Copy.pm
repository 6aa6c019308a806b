package File::Copy;
use strict;
use warnings;
use File::Basename ();
use Exporter 'import';

our @EXPORT = qw(copy move cp mv);

# Names or open handles.
sub copy {
    my ($from, $to) = @_;
    my $in = handle($from, '<:raw') or return 0;
    my $out = handle(within($to, $from), '>:raw') or return 0;
    local ($/, $\, $,) = \65536;
    while (defined(my $part = <$in>)) { print {$out} $part or return 0 }
    return is_open($to) || close($out);
}

sub cp { my ($from, $to) = @_; return copy(@_) && chmod((stat $from)[2] & 07777, within($to, $from)) }

sub move {
    my ($from, $to) = ($_[0], within($_[1], $_[0]));
    return rename($from, $to) || (copy($from, $to) && unlink($from));
}

*mv = \&move;

sub is_open { my ($file) = @_; return ref $file || ref \$file eq 'GLOB' }

sub handle {
    my ($file, $mode) = @_;
    return $file if is_open($file);
    open(my $opened, $mode, $file) or return;
    return $opened;
}

sub within {
    my ($to, $from) = @_;
    return !is_open($to) && -d $to ? "$to/" . File::Basename::basename($from) : $to;
}

1;
