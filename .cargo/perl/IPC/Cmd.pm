package IPC::Cmd;
use strict;
use warnings;
use File::Spec;
use Exporter 'import';

our @EXPORT_OK = qw(can_run);

sub can_run {
    my ($program) = @_;
    return $program if File::Spec->file_name_is_absolute($program) && -x $program && !-d _;
    for my $folder (File::Spec->path) {
        my $path = File::Spec->catfile($folder, $program);
        return $path if -x $path && !-d _;
    }
    return;
}

1;
